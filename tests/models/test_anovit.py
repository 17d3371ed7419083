"""AnoViT: the published decoders on carried-over weights, the input's statistics, the scores."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad import models
from jaxad.data.batch import Batch
from jaxad.models import anovit
from jaxad.models.anovit import Decoder
from jaxad.models.base import parameter_key
from jaxad.run.errors import UserError

SMALL = {"patch": 4, "features": 16, "depth": 1, "heads": 2, "width": 0.1}


def decoder_variables(values, kind, norm):
    """The weights of the Sequential (three layers a block) in our names and layouts."""
    params, statistics = {}, {}
    blocks = 6 if kind == "2022" else 5
    for i in range(blocks):
        kernel = values[f"weight/{3 * i}.weight"]
        params[f"up_{i}"] = {
            # (i, o, h, w), and turned around.
            "kernel": kernel.transpose(2, 3, 0, 1)[::-1, ::-1].copy(),
            "bias": values[f"weight/{3 * i}.bias"],
        }
        if norm == "batch":
            layer = f"weight/{3 * i + 1}"
            params[f"norm_{i}"] = {
                "scale": values[f"{layer}.weight"],
                "bias": values[f"{layer}.bias"],
            }
            statistics[f"norm_{i}"] = {
                "mean": values[f"{layer}.running_mean"],
                "var": values[f"{layer}.running_var"],
            }
    if kind == "2024":
        kernel = values["weight/16.weight"]
        params["to_image"] = {
            "kernel": kernel.transpose(2, 3, 1, 0),
            "bias": values["weight/16.bias"],
        }
    return {"params": params} | ({"batch_stats": statistics} if statistics else {})


@pytest.mark.parametrize(
    ("case", "kind", "norm"),
    [("2022", "2022", "instance"), ("2022-batch", "2022", "batch"), ("2024", "2024", "instance")],
)
def test_every_block_and_the_output_equal_pytorch(case, kind, norm, golden_values):
    values = golden_values("anovit", case)
    # 48 features of 768: every width is divided by 16.
    module = Decoder((40, 40, 3), kind, 1 / 16, norm)
    variables = decoder_variables(values, kind, norm)
    start = jax.eval_shape(
        lambda: module.init(parameter_key(0), jnp.zeros((1, 4, 4, 48)), train=False)
    )
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, dict(start))
    output, state = jax.jit(
        lambda v, x: module.apply(
            v, x, train=True, mutable=["intermediates", "batch_stats"], capture_intermediates=True
        )
    )(variables, values["features"])
    layers = state["intermediates"]
    for i in range(len([name for name in values if name.startswith("block/")])):
        name = f"norm_{i}" if norm == "batch" else f"InstanceNorm_{i}"
        ours = np.maximum(layers[name]["__call__"][0][:1, ::2, ::2], 0)
        # Golden values are float64; normalisation over few values multiplies float32's rounding.
        np.testing.assert_allclose(ours, values[f"block/{i}"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(output, values["output"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", anovit.DECODERS)
def test_the_default_has_the_published_sizes(kind):
    """ViT-B/16 at 384, 577 positions; channels and sides of the decoders' blocks."""
    model = models.build("anovit", (384, 384, 3), decoder=kind)
    shapes = jax.eval_shape(model.init, parameter_key(0))["params"]
    assert shapes["encoder"]["positions"].shape == (1, 577, 768)
    assert shapes["encoder"]["norm"]["scale"].shape == (768,)
    assert "block_11" in shapes["encoder"] and "block_12" not in shapes["encoder"]
    kernels = [shapes["decoder"][f"up_{i}"]["kernel"].shape for i in range(5)]
    assert [k[-1] for k in kernels] == [256, 128, 64, 32, 16]
    assert kernels[0] == (3, 3, 768, 256)
    last = "up_5" if kind == "2022" else "to_image"
    assert shapes["decoder"][last]["kernel"].shape == (3, 3, 16, 3)

    def sides(v, x):
        _, state = model.module.apply(v, x, capture_intermediates=True, mutable=["intermediates"])
        return state["intermediates"]["decoder"]

    layers = jax.eval_shape(
        sides, {"params": shapes}, jax.ShapeDtypeStruct((1, 384, 384, 3), jnp.float32)
    )
    found = [layers[f"up_{i}"]["__call__"][0].shape[1] for i in range(6 if kind == "2022" else 5)]
    assert found == [26, 28, 30, 59, 117, 233][: len(found)]


def test_the_scores_are_of_the_unsmoothed_error_over_pixels_and_channels():
    model = models.build("anovit", (16, 16, 3), **SMALL)
    variables = jax.jit(model.init)(parameter_key(0))
    images = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    found = jax.jit(model.detect)(variables, images)
    squared = np.square(images - found.reconstruction)
    np.testing.assert_allclose(found.maps["l2"], squared.mean(-1), rtol=1e-5)
    np.testing.assert_allclose(found.scores["l2_max"], squared.max((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found.scores["l2_mean"], squared.mean((1, 2, 3)), rtol=1e-5)
    assert np.all(found.scores["l2_max"] > found.maps["l2"].max((1, 2)))


def batches(images):
    """Two batches; in the second, one image is padding."""
    valid = np.array([True] * len(images))
    index = np.arange(len(images), dtype=np.int32)
    yield Batch(images, index, valid)
    yield Batch(images[::-1].copy(), index, np.array([False, *valid[1:]]))


def test_the_input_is_standardised_by_the_training_images():
    images = np.random.default_rng(0).integers(20, 200, (4, 16, 16, 3), np.uint8)
    images[..., 1] //= 3
    model = models.build("anovit", (16, 16, 3), decoder="2022", normalise="train", **SMALL)
    start = jax.jit(model.init)(parameter_key(0))
    variables = model.initialise(start, batches(images))
    pixels = np.concatenate([images, images[::-1][1:]]) / 255
    np.testing.assert_allclose(variables["pixels"]["mean"], pixels.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(variables["pixels"]["std"], pixels.std((0, 1, 2)), rtol=1e-5)
    assert jax.tree.map(jnp.shape, dict(start)) == jax.tree.map(jnp.shape, dict(variables))
    # The network sees, and is to reproduce, standardised images; what is shown is not.
    batch = Batch(images, np.arange(4, dtype=np.int32), np.ones(4, bool))
    keys = jax.random.split(jax.random.key(0), 4)
    loss = model.loss(variables, batch, keys, True).per_example
    standard = jnp.float32((images / 255 - pixels.mean((0, 1, 2))) / pixels.std((0, 1, 2)))
    output = model.module.apply({"params": variables["params"]}, standard)
    np.testing.assert_allclose(loss, np.square(standard - output).mean((1, 2, 3)), rtol=1e-4)
    shown = model.detect(variables, images).reconstruction
    back = np.asarray(output) * pixels.std((0, 1, 2)) + pixels.mean((0, 1, 2))
    np.testing.assert_allclose(shown, np.clip(back, 0, 1), atol=1e-5)


def test_the_decoder_of_2022_cannot_go_below_the_mean():
    """Its last ReLU: of a standardised target, the negative half is out of reach."""
    model = models.build("anovit", (16, 16, 3), decoder="2022", normalise="train", **SMALL)
    variables = jax.jit(model.init)(parameter_key(0))
    standard = jnp.float32(np.random.default_rng(0).normal(size=(2, 16, 16, 3)))
    output = model.module.apply({"params": variables["params"]}, standard)
    assert float(output.min()) == 0.0 and float(output.max()) < 1.0


def test_the_encoder_carries_its_own_label():
    model = models.build("anovit", (16, 16, 3), **SMALL)
    labels = model.param_labels(jax.eval_shape(model.init, parameter_key(0))["params"])
    assert set(jax.tree.leaves(labels["encoder"])) == {"encoder"}
    assert set(jax.tree.leaves(labels["decoder"])) == {"default"}


@pytest.mark.parametrize(
    ("shape", "options", "sentence"),
    [
        ((18, 16, 3), {}, "images of 18 x 16 do not divide into patches of 4"),
        ((16, 16, 3), {"heads": 3}, "model.features 16 cannot be shared by model.heads 3"),
        ((16, 16, 3), {"decoder": "2023"}, "'model.decoder' must be one of 2022, 2024, not '2023'"),
        ((16, 16, 3), {"normalise": "half"}, "'model.normalise' must be one of .*, not 'half'"),
    ],
)
def test_impossible_options_are_refused(shape, options, sentence):
    with pytest.raises(UserError, match=sentence):
        models.build("anovit", shape, **{**SMALL, **options})
