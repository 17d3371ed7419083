"""The masked autoencoder against its public implementations, and what its masks promise."""

from __future__ import annotations

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from scipy import ndimage
from skimage.metrics import structural_similarity

from jaxad import models
from jaxad.convert.convert import convert
from jaxad.convert.families import family
from jaxad.convert.mapping import map_weights, plan_mapping
from jaxad.data.batch import Batch
from jaxad.models import mae
from jaxad.models.base import parameter_key
from jaxad.models.layers.masked_autoencoder import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    make_reconstruct,
    normalise_patches,
    restore_patches,
    standardise,
    to_pixels,
)
from jaxad.ops.mask_schedules import random_ensemble, sliding
from jaxad.ops.patches import patchify, unpatchify
from jaxad.run.config import load_config
from jaxad.training.step import make_validation_step
from jaxad.training.weights import load_weights

FILE = pathlib.Path(__file__).parent.parent / "golden" / "mae.npz"
CONVERT = FILE.parent / "convert"
OPTIONS = {
    "patch": 4,
    "features": 16,
    "depth": 2,
    "heads": 2,
    "decoder_features": 8,
    "decoder_depth": 1,
    "decoder_heads": 2,
}
CASES = {"mae": ("mae", 1e-6), "hf": ("hf-mae", 1e-12)}
# Ours is float32, theirs float64: relative to the largest value.
CLOSE = 1e-5


class Array:
    def __init__(self, array):
        self._array, self.shape = array, array.shape

    def read(self):
        return self._array


class Golden:
    def __init__(self, case):
        with np.load(FILE) as file:
            own = {k.removeprefix(f"{case}/"): file[k] for k in file.files if k.startswith(case)}
        name, epsilon = CASES[case]
        state = {
            k.removeprefix("weight/"): Array(v) for k, v in own.items() if k.startswith("weight/")
        }
        leaves = map_weights(state, family(name), source=case).leaves
        leaves = {tuple(path.split("/")): leaf for path, leaf in leaves.items()}
        self.positions = {k[1]: v for k, v in leaves.items() if k[-1] == "positions"}
        self.variables = unflatten_dict({k: v for k, v in leaves.items() if k[-1] != "positions"})
        self.values = own
        self.options = OPTIONS | {"layer_norm_epsilon": epsilon}
        self.model = models.build("mae", (32, 32, 3), **self.options)
        self.images = standardise(jnp.asarray(own["images"] / 255.0, jnp.float32))
        self.order = jnp.asarray(own["order"])


@pytest.fixture(scope="module", params=list(CASES))
def golden(request):
    return Golden(request.param)


@pytest.fixture(scope="module")
def model():
    return models.build("mae", (32, 32, 3), **OPTIONS)


@pytest.fixture(scope="module")
def variables(model):
    return jax.jit(model.init)(parameter_key(0))


@pytest.fixture(scope="module")
def apply(model):
    return jax.jit(model.module.apply)


def photographs(seed=0, shape=(2, 32, 32, 3)):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def assert_close(actual, expected, tolerance=CLOSE):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def test_parameters_and_positions_are_the_files(golden):
    ours = jax.eval_shape(golden.model.init, jax.random.key(0))
    shapes = lambda tree: {k: v.shape for k, v in flatten_dict(dict(tree)).items()}
    assert shapes(ours) == shapes(golden.variables)
    bound = golden.model.module.bind(golden.variables)
    for part in (bound.encoder, bound.decoder):
        table = golden.positions[part.name][:, 1:]
        np.testing.assert_allclose(part.position_table[..., -64:, :].reshape(table.shape), table,
                                   atol=1e-6)  # fmt: skip


def test_predictions_and_losses_are_pytorchs(golden):
    visible = 16
    patches = jnp.take_along_axis(
        patchify(golden.images, patch=4), golden.order[:, :, None], axis=1
    )
    seen, target = patches[:, :visible], patches[:, visible:]
    found = jax.jit(golden.model.module.apply)(golden.variables, seen, golden.order)
    masked = golden.values["order"][:, visible:, None]
    assert_close(found, np.take_along_axis(golden.values["prediction"], masked, axis=1))
    # A loss is a mean of a thousand squares.
    np.testing.assert_allclose(np.mean(np.square(found - target)), golden.values["loss"], rtol=1e-5)
    np.testing.assert_allclose(
        np.mean(np.square(found - normalise_patches(target))),
        golden.values["loss_norm_pix"],
        rtol=1e-5,
    )


def test_the_sliding_mask_makes_pytorchs_image(golden):
    detection = jax.jit(golden.model.detect)(golden.variables, golden.values["images"])
    # In [0, 1], after a division by 255 and back from standardised values.
    np.testing.assert_allclose(detection.reconstruction, golden.values["sliding"], atol=1e-5)


def test_the_loss_is_that_of_the_drawn_masks(model, variables, apply):
    """Written out with all patches, where each mask is found from the keys again."""
    images = photographs()
    batch = Batch(images, np.arange(2, dtype=np.int32), np.ones(2, bool))
    keys = jax.random.split(jax.random.key(3), 2)
    output = jax.jit(model.loss, static_argnums=3)(variables, batch, keys, True)
    patches = np.asarray(patchify(standardise(jnp.asarray(images)), patch=4))
    masks = []
    for i in range(2):
        order = np.argsort(jax.random.uniform(keys[i], (64,)))
        seen = jnp.asarray(patches[i][order[:16]])[None]
        found = apply(variables, seen, jnp.asarray(order)[None])[0]
        error = np.mean(np.square(found - patches[i][order[16:]]))
        np.testing.assert_allclose(output.per_example[i], error, rtol=1e-5)
        masks.append(set(order[:16]))
    assert masks[0] != masks[1]


def test_masks_of_a_validation_are_fixed(model, variables):
    images = photographs()
    step = jax.jit(make_validation_step(model, seed=0))
    batch = lambda order: Batch(images[order], np.int32(order), np.ones(2, bool))
    first, again = (step(variables, batch([0, 1])).sums["loss"] for _ in range(2))
    assert float(first) == float(again)
    np.testing.assert_allclose(first, step(variables, batch([1, 0])).sums["loss"], rtol=1e-6)
    other = step(variables, batch([0, 1])._replace(index=np.int32([5, 6]))).sums["loss"]
    assert abs(float(other) - float(first)) > 1e-4


@pytest.mark.parametrize("fill", ["drop", "gray"])
@pytest.mark.parametrize("norm_pix", [False, True])
def test_what_is_under_a_mask_does_not_show_in_its_reconstruction(model, variables, fill, norm_pix):
    plan = sliding((8, 8), block=2, stride=2)
    options = {"norm_pix": norm_pix, "fill": fill, "passes_at_once": 4}
    reconstruct = jax.jit(make_reconstruct(model.module, plan, **options))
    images = standardise(jnp.asarray(photographs()))
    defect = images.at[:, 8:16, 16:24].set(3.0)
    good, bad = reconstruct(variables, images), reconstruct(variables, defect)
    np.testing.assert_array_equal(good[:, 8:16, 16:24], bad[:, 8:16, 16:24])
    outside = np.ones((32, 32), bool)
    outside[8:16, 16:24] = False
    assert np.abs(good - bad)[:, outside].max() > 1e-4


@pytest.mark.parametrize("passes_at_once", [1, 2, 64])
@pytest.mark.parametrize("schedule", ["overlapping", "random"])
def test_predictions_of_all_passes_are_averaged(model, variables, apply, schedule, passes_at_once):
    """By hand, pass by pass; however many are computed side by side."""
    plan = {
        "overlapping": sliding((8, 8), block=4, stride=2),
        "random": random_ensemble((8, 8), block=1, passes=4, mask_ratio=0.75, seed=1),
    }[schedule]
    images = standardise(jnp.asarray(photographs()))
    patches = np.asarray(patchify(images, patch=4))
    total, times = np.zeros_like(patches), np.zeros(64)
    for seen, hidden in zip(plan.visible, plan.masked, strict=True):
        order = np.tile(np.concatenate([seen, hidden]), (2, 1))
        total[:, hidden] += apply(variables, jnp.asarray(patches[:, seen]), jnp.asarray(order))
        times[hidden] += 1
    expected = unpatchify(jnp.asarray(total / times[None, :, None]), patch=4, grid=(8, 8))
    options = {"norm_pix": False, "fill": "drop", "passes_at_once": passes_at_once}
    made = jax.jit(make_reconstruct(model.module, plan, **options))
    # float32 sums in another order.
    np.testing.assert_allclose(made(variables, images), expected, atol=2e-5)


def test_gray_patches_are_seen_as_imagenets_mean(model, variables):
    """The same as a network that sees everything, shown an image with a gray block."""
    plan = sliding((8, 8), block=2, stride=2)
    images = standardise(jnp.asarray(photographs()))
    made = make_reconstruct(model.module, plan, norm_pix=False, fill="gray", passes_at_once=4)
    gray = images.at[:, 8:16, 16:24].set(0.0)  # rows 2, 3 and columns 4, 5 of the patches
    patches = patchify(gray, patch=4)
    order = jnp.tile(jnp.arange(64)[None], (2, 1))

    def all_seen(module, patches, order):
        tokens = module.encoder.patch_embedding(unpatchify(patches, patch=4, grid=(8, 8)))
        tokens = tokens + module.encoder.position_table[:, 1:]
        return module.fill_in(tokens, order, 64)

    see = jax.jit(lambda v, *x: model.module.apply(v, *x, method=all_seen))
    found = see(variables, patches, order)
    expected = unpatchify(found, patch=4, grid=(8, 8))[:, 8:16, 16:24]
    np.testing.assert_allclose(
        jax.jit(made)(variables, images)[:, 8:16, 16:24], expected, atol=2e-5
    )


def test_standardised_images_come_back():
    images = photographs()
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    ours = standardise(jnp.asarray(images))
    np.testing.assert_allclose(ours, (images - mean) / std, atol=1e-6)
    np.testing.assert_allclose(to_pixels(ours), images, atol=1e-6)
    gray = images[..., :1]
    expected = (gray - mean.mean()) / std.mean()
    np.testing.assert_allclose(standardise(jnp.asarray(gray)), expected, atol=1e-6)


def test_normalised_patches_have_mean_zero_and_unbiased_variance_one():
    patches = jnp.asarray(np.random.default_rng(0).normal(3.0, 2.0, (2, 5, 48)), jnp.float32)
    found = np.asarray(normalise_patches(patches), np.float64)
    np.testing.assert_allclose(found.mean(axis=-1), 0.0, atol=1e-6)
    np.testing.assert_allclose(found.var(axis=-1, ddof=1), 1.0, rtol=1e-5)
    # A flat patch is 0, not a division by 0.
    assert not np.any(normalise_patches(jnp.ones((1, 1, 48))))


def test_restored_patches_have_the_statistics_of_their_surroundings():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(1, 4, 4, 12))
    patches = jnp.asarray(images.reshape(1, 16, 12), jnp.float32)
    order = np.array([[i for i in range(16) if i not in (5, 10)] + [5, 10]])
    predictions = jnp.asarray(rng.normal(size=(1, 2, 12)), jnp.float32)
    seen = patches[:, order[0, :14]]
    found = restore_patches(predictions, seen, jnp.asarray(order), columns=4)
    for k, patch in enumerate((5, 10)):
        weight = np.array(
            [((i // 4 - patch // 4) ** 2 + (i % 4 - patch % 4) ** 2) ** -2.0 for i in order[0, :14]]
        )
        weight /= weight.sum()
        mean = weight @ np.asarray(seen[0]).mean(axis=1)
        variance = weight @ np.asarray(seen[0]).var(axis=1, ddof=1)
        expected = np.asarray(predictions[0, k]) * np.sqrt(variance + 1e-6) + mean
        np.testing.assert_allclose(found[0, k], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("morphology", list(mae.MORPHOLOGY))
@pytest.mark.parametrize("size, threshold", [(2, 0.0), (4, 0.3), (0, 0.2)])
def test_maps_are_those_of_the_paper(morphology, size, threshold):
    images, other = photographs(0), photographs(1)
    maps = mae.anomaly_maps(
        jnp.asarray(images),
        jnp.asarray(other),
        ssim_window=7,
        morphology=morphology,
        morphology_size=size,
        map_threshold=threshold,
    )
    error = np.abs(images - other).mean(axis=-1)
    # scikit-image filters float64 copies; its map of each channel is what the mean is taken of.
    ssim = np.stack(
        [
            structural_similarity(
                a.astype(np.float64), b.astype(np.float64), win_size=7, channel_axis=-1,
                data_range=1.0, full=True,
            )[1].mean(axis=-1)
            for a, b in zip(images, other, strict=True)
        ]
    )  # fmt: skip
    np.testing.assert_allclose(maps["l1"], error, atol=1e-6)
    np.testing.assert_allclose(maps["ssim"], 1.0 - ssim, atol=1e-4)
    for name, raw in (("ssim+l1", 1.0 - ssim + error), ("ssim*l1", (1.0 - ssim) * error)):
        filters = {
            "opening": ndimage.grey_opening,
            "closing": ndimage.grey_closing,
            "erosion": ndimage.grey_erosion,
            "dilation": ndimage.grey_dilation,
        }
        expected = filters[morphology](raw, size=(1, size, size), mode="reflect") if size else raw
        found = np.asarray(maps[name])
        if threshold:
            # Values at the threshold itself may fall on either side.
            sure = np.abs(expected - threshold) > 1e-3
            expected, found = np.where(expected > threshold, expected, 0.0)[sure], found[sure]
            assert np.any(expected == 0.0) or name == "ssim+l1"
        np.testing.assert_allclose(found, expected, atol=2e-4)


def test_diagnostics_show_the_visible_patches_and_fill_in_the_others(model, variables):
    images = photographs()
    shown = jax.device_get(jax.jit(model.diagnostics)(variables, images))
    gray = np.asarray(to_pixels(jnp.zeros((1, 1, 1, 3))))[0, 0, 0]
    masked = np.all(np.abs(shown["masked"] - gray) < 1e-6, axis=-1)
    assert masked.mean() == pytest.approx(0.75)
    for name in ("masked", "filled_in"):
        np.testing.assert_allclose(shown[name][~masked], images[~masked], atol=1e-6)
    assert np.abs(shown["filled_in"] - shown["masked"])[masked].max() > 1e-2


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"schedule": "slidng"}, "'model.schedule' must be one of .*, not 'slidng'"),
        ({"fill": "grey"}, "'model.fill' must be one of .*, not 'grey'"),
        ({"morphology": "open"}, "'model.morphology' must be one of .*, not 'open'"),
        ({"morphology_size": -1}, "'model.morphology_size' must be 0 or more, not -1"),
        ({"passes_at_once": -1}, "'model.passes_at_once' must be 0 or more, not -1"),
        ({"mask_ratio": 1.0}, "'model.mask_ratio' must be above 0 and below 1, not 1.0"),
        ({"mask_ratio": 0.0}, "'model.mask_ratio' must be above 0 and below 1, not 0.0"),
        ({"decoder_heads": 3}, "cannot be shared"),
        ({"patch": 5}, "do not divide into patches of 5"),
        ({"block": 2, "stride": 3}, "leave out patches"),
        ({"schedule": "interleaved", "passes": 3}, "2, 4, 9, 16"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, sentence):
    with pytest.raises(models.UserError, match=sentence):
        models.build("mae", (32, 32, 3), **(OPTIONS | options))


class Shape:
    """A tensor of which only the shape is asked."""

    def __init__(self, shape):
        self.shape = shape

    def read(self):
        raise AssertionError("no values are there")


@pytest.mark.parametrize("variant, size", [("b16", "base"), ("l16", "large"), ("h14", "huge")])
def test_every_key_of_the_published_files_has_its_place_in_the_network(variant, size):
    """By shapes alone, of encoder and decoder, all blocks."""
    with np.load(CONVERT / "values.npz") as file:
        keys = json.loads(str(file["full_size"]))[f"mae/{size}"]
    plan = plan_mapping({k: Shape(tuple(v)) for k, v in keys.items()}, family("mae"), source=size)
    assert not plan.absent and not plan.dropped
    found = {
        entry.path: entry.rule.to_flax(
            *(np.broadcast_to(np.float32(0), plan.state[key].shape) for key in entry.sources)
        ).shape
        for entry in plan.entries
    }
    config = load_config(f"mae:{variant}")
    options = config.model.to_dict()
    model = models.build(options.pop("name"), (*config.data.image_size, 3), **options)
    ours = jax.eval_shape(model.init, jax.random.key(0))
    shapes = {"/".join(path): leaf.shape for path, leaf in flatten_dict(dict(ours)).items()}
    n = found["params/encoder/positions"][1]
    assert n == 1 + (224 // options["patch"]) ** 2
    positions = {"params/encoder/positions", "params/decoder/positions"}
    assert {k: v for k, v in found.items() if k not in positions} == shapes


@pytest.mark.parametrize("name, file", [("mae", "mae.pth"), ("hf-mae", "hf_mae")])
def test_a_converted_file_predicts_what_its_network_did(tmp_path, name, file):
    """From the file of the PyTorch project to this model; nothing is masked."""
    convert(name, CONVERT / file, tmp_path / "weights", heads=2, decoder_heads=2)
    epsilon = {"mae": 1e-6, "hf-mae": 1e-12}[name]
    model = models.build("mae", (12, 12, 3), **OPTIONS, layer_norm_epsilon=epsilon, block=1)
    variables = load_weights(jax.jit(model.init)(parameter_key(0)), tmp_path / "weights")
    with np.load(CONVERT / "values.npz") as values:
        key = {"mae": "mae", "hf-mae": "hf_mae"}[name]
        images, expected = values["images"], values[f"{key}/prediction"]
    places = jnp.tile(jnp.arange(9)[None], (len(images), 1))

    def everything(module, images):
        return module.fill_in(module.embed(images), places, 9)

    found = jax.jit(lambda v, x: model.module.apply(v, x, method=everything))(variables, images)
    assert_close(found, expected)


def test_bfloat16_and_recomputed_blocks_change_rounding_alone(model, variables):
    images = photographs()
    batch = Batch(images, np.arange(2, dtype=np.int32), np.ones(2, bool))
    keys = jax.random.split(jax.random.key(0), 2)

    def gradient(options):
        other = models.build("mae", (32, 32, 3), **OPTIONS, **options)
        loss = lambda params: jnp.mean(other.loss({"params": params}, batch, keys, True)[0])
        return jax.jit(jax.value_and_grad(loss))(variables["params"])

    value, exact = gradient({})
    again, recomputed = gradient({"remat": True})
    np.testing.assert_allclose(again, value, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(recomputed), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max() + 1e-8)
    rough, of_rough = gradient({"dtype": "bfloat16"})
    assert 0 < abs(float(rough - value)) < 0.02 * float(value)  # 8 bits, over a mean
    assert {leaf.dtype for leaf in jax.tree.leaves(of_rough)} == {jnp.dtype("float32")}
