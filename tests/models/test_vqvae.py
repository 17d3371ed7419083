"""The VQ-VAE: PyTorch's values layer by layer, the codebook by gradient and by moving averages."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from scipy import ndimage
from skimage.metrics import structural_similarity

from jaxad import models
from jaxad.data.batch import Batch
from jaxad.models.base import parameter_key
from jaxad.models.vqvae import VQVAE
from jaxad.run.errors import UserError

# The golden values are float64, ours float32: up to 20 layers deep, with batch statistics, errors
# stay below a few parts in 1e5 of the largest entry.
CLOSE = 5e-5

# case -> image shape, options: three halvings as for MVTec, two as for UCSD.
CASES = {
    "three": ((32, 32, 3), {"downsampling": 3, "residual_layers": 3}),
    "two": (
        (16, 24, 1),
        {
            "downsampling": 2,
            "residual_layers": 1,
            "beta": 0.5,
            "ssim_window": 7,
            "dilation": 3,
            "dilate_ssim": True,
        },
    ),
}


def assert_close(ours, expected, tolerance=CLOSE, name=""):
    """Within ``tolerance`` of the largest entry."""
    assert np.shape(ours) == np.shape(expected), name
    scale = float(np.max(np.abs(expected)))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * scale, err_msg=name)


def batch_of(images):
    return Batch(images, np.arange(len(images), dtype=np.int32), np.ones(len(images), bool))


def keys_of(count):
    return jax.random.split(jax.random.key(0), count)


class Loaded:
    """A model with the golden weights, and its outputs in training."""

    def __init__(self, golden, case):
        shape, options = CASES[case]
        self.options = options
        self.values = golden("vqvae", case)
        self.beta = options.get("beta", 0.25)
        self.model = models.build("vqvae", shape, features=5, codes=8, **options)
        self.variables = {
            "params": self.values.tree("weight"),
            "batch_stats": self.values.statistics("weight"),
        }
        self.images = np.float32(self.values.images / 255.0)

    def outputs(self, train, images):
        """Layer -> output."""

        @jax.jit
        def run(variables, images):
            return self.model.module.apply(
                variables,
                images,
                train=train,
                mutable=["intermediates", "batch_stats"],
                capture_intermediates=True,
            )[1]["intermediates"]

        layers = run(self.variables, images)
        return {k: v["__call__"][0] for k, v in layers.items() if isinstance(v, dict)}


@pytest.fixture(scope="module", params=list(CASES))
def loaded(golden, request):
    return Loaded(golden, request.param)


# --- against PyTorch --------------------------------------------------------------------------


def test_variables_have_the_shapes_of_init(loaded):
    expected = jax.eval_shape(loaded.model.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, loaded.variables) == jax.tree.map(jnp.shape, dict(expected))


def test_the_default_has_the_sizes_of_the_paper():
    """Section III.A: 256 x 256 to 32 x 32 latents of 256, 512 codes; every layer 256 wide."""
    model = models.build("vqvae", (256, 256, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0))
    kernels = {
        path[:-1]: leaf.shape
        for path, leaf in flatten_dict(variables["params"]).items()
        if path[-1] == "kernel"
    }
    sides = {"down": 4, "up": 4, "to": 4, "Conv_0": 3, "Conv_1": 1}
    for path, shape in kernels.items():
        side = sides[path[-1] if "residual" in path[0] else path[0].split("_")[0]]
        ci = 3 if path == ("down_0",) else 256
        co = 3 if path == ("to_image",) else 256
        assert shape == (side, side, ci, co), path
    assert len(kernels) == 3 + 2 * 3 + 2 * 3 + 3
    assert variables["params"]["codebook"].shape == (512, 256)
    images = jax.ShapeDtypeStruct((1, 256, 256, 3), np.uint8)
    _, quantised, _ = jax.eval_shape(
        lambda v, x: model.module.apply(v, x / np.float32(255)), variables, images
    )
    assert quantised.indices.shape == (1, 32, 32)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_every_layer_equals_pytorch(loaded, mode):
    """In evaluation by the running statistics, in training by those of the batch."""
    expected = loaded.values.activations(mode)
    images = loaded.images[:1] if mode == "eval" else loaded.images
    outputs = loaded.outputs(mode == "train", images)
    assert set(outputs) == set(expected)
    for name, output in expected.items():
        assert_close(outputs[name], output, name=name)


def test_loss_gradients_and_statistics_equal_pytorch(loaded):
    def loss(params):
        variables = {**loaded.variables, "params": params}
        output = loaded.model.loss(variables, batch_of(loaded.values.images), keys_of(2), True)
        return jnp.mean(output.per_example), output

    gradients, output = jax.jit(jax.grad(loss, has_aux=True))(loaded.variables["params"])
    expected = loaded.values.section("loss")
    np.testing.assert_array_equal(output.sums["codes"], expected.pop("code_counts"))
    assert set(output.terms) == set(expected)
    for name, term in expected.items():
        assert_close(output.terms[name], term, name=name)
    total = expected["nll"] + expected["codebook"] + loaded.beta * expected["commitment"]
    assert_close(output.per_example, total)

    expected = flatten_dict(loaded.values.tree("gradient"))
    gradients = flatten_dict(gradients)
    assert set(gradients) == set(expected)
    for path, gradient in expected.items():
        # Sums over all positions of terms of both signs: an order of magnitude less exact.
        assert_close(gradients[path], gradient, 5e-4, name="/".join(path))
    # The last two codes are nobody's nearest: nothing but a restart would ever move them.
    np.testing.assert_array_equal(gradients[("codebook",)][6:], 0.0)
    used = output.sums["codes"] > 0
    np.testing.assert_array_equal(np.any(gradients[("codebook",)] != 0, axis=1), used)
    assert_statistics_follow(loaded, output.collections["batch_stats"])


def assert_statistics_follow(loaded, ours):
    """PyTorch's running variance takes the unbiased variance of the batch, linen's the biased one.

    Both normalise by the biased one. Of n values the biased one is (n - 1) / n of the other, and
    0.9 of the old value stays in both.
    """
    before = flatten_dict(loaded.variables["batch_stats"])
    after = flatten_dict(loaded.values.statistics("after"))
    values = {
        layer.replace("_norm", ""): output.size / output.shape[-1]
        for layer, output in loaded.values.activations("train").items()
        if "norm" in layer
    }
    assert set(flatten_dict(ours)) == set(after)
    for path, statistic in flatten_dict(ours).items():
        old, expected = 0.9 * before[path], after[path]
        if path[-1] == "var":
            n = values[path[0].replace("_norm", "")]
            assert not np.allclose(statistic, expected, rtol=1e-5)
            expected = old + (expected - old) * (n - 1) / n
        assert_close(statistic, expected, name="/".join(path))


def test_maps_equal_scikit_image_and_scipy(loaded):
    """Eqs. 5 and 6 and their product after dilation: one cell of 8 pixels, or 3 pixels of both."""
    detection = jax.jit(loaded.model.detect)(loaded.variables, loaded.values.images)
    expected = loaded.values.section("detect")
    indices = expected.pop("indices")
    assert_close(detection.reconstruction, expected.pop("reconstruction"))
    assert set(detection.maps) == set(expected)
    if loaded.options.get("dilate_ssim"):  # the stored map is the one before dilation
        one = functools.partial(ndimage.grey_dilation, size=(loaded.options["dilation"],) * 2)
        expected["ssim"] = np.stack([one(values) for values in expected["ssim"]])
    for name, anomaly_map in expected.items():
        # The variances of SSIM are differences of float32 moments.
        assert_close(detection.maps[name], anomaly_map, 2e-4, name=name)
    diagnostics = jax.jit(loaded.model.diagnostics)(loaded.variables, loaded.values.images)
    np.testing.assert_array_equal(diagnostics["code_indices"], indices)
    counts = np.bincount(indices.ravel(), minlength=8)
    np.testing.assert_array_equal(diagnostics["code_counts"], counts)


@pytest.mark.parametrize("channels", ["mean", "product"])
def test_printed_constants_and_products_of_channels_equal_scikit_image(channels):
    """Eq. 5 with c1 = 0.01 and c2 = 0.03 as printed; scikit-image squares what it is given."""
    options = {"features": 5, "codes": 8, "residual_layers": 1, "downsampling": 1}
    choice = {"ssim_constants": (0.01, 0.03), "ssim_channels": channels}
    model = models.build("vqvae", (16, 16, 3), **options, **choice)
    variables = jax.jit(model.init)(parameter_key(0))
    images = np.random.default_rng(0).random((1, 16, 16, 3), np.float32)
    detection = jax.jit(model.detect)(variables, images)
    _, similarity = structural_similarity(
        images[0], np.asarray(detection.reconstruction[0]), full=True, data_range=1.0,
        channel_axis=-1, win_size=11, K1=0.01**0.5, K2=0.03**0.5,
    )  # fmt: skip
    expected = getattr(np, {"mean": "mean", "product": "prod"}[channels])(1 - similarity, axis=-1)
    # scikit-image works in float64 here; our moments are float32.
    np.testing.assert_allclose(detection.maps["ssim"][0], expected, atol=2e-5)


# --- the codebook by moving averages ----------------------------------------------------------

EMA = {"downsampling": 1, "features": 4, "codes": 6, "residual_layers": 1, "decay": 0.8}


@pytest.fixture(scope="module")
def ema():
    """Model, variables with averages that are not those of the start, images."""
    model = models.build("vqvae", (12, 16, 1), codebook="ema", **EMA)
    variables = jax.jit(model.init)(parameter_key(0))
    rng = np.random.default_rng(0)
    counts = rng.uniform(1, 5, 6).astype(np.float32)
    sums = rng.normal(size=(6, 4)).astype(np.float32) * counts[:, None]
    moving = {"codes": sums / counts[:, None], "counts": counts, "sums": sums}
    images = jnp.asarray(rng.random((4, 12, 16, 1), np.float32))
    return model, {**variables, "codebook": jax.tree.map(jnp.asarray, moving)}, images


def averages_by_hand(moving, latents, decay=0.8, epsilon=1e-5):
    """van den Oord et al., appendix A.1, in float64, one latent after another."""
    counts, sums = np.zeros(6), np.zeros((6, 4))
    for z in latents.reshape(-1, 4).astype(np.float64):
        k = np.argmin(np.sum(np.square(moving["codes"] - z[None]), axis=1))
        counts[k] += 1
        sums[k] += z
    new_counts = decay * moving["counts"] + (1 - decay) * counts
    new_sums = decay * moving["sums"] + (1 - decay) * sums
    total = new_counts.sum()
    smoothed = (new_counts + epsilon) / (total + 6 * epsilon) * total
    return {
        "codes": new_sums / smoothed[:, None],
        "counts": new_counts,
        "sums": new_sums,
    }, counts


def assert_moved(ours, expected):
    for name, value in expected.items():
        assert_close(ours[name], value, 1e-5, name)


def test_one_step_of_the_averages_equals_the_formulas(ema):
    model, variables, images = ema
    run = jax.jit(lambda v: model.loss(v, batch_of(images), keys_of(4), True))
    output = run(variables)
    latents, _ = model.module.apply(
        variables, images, train=True, method=VQVAE.encode, mutable=["batch_stats"]
    )
    expected, counts = averages_by_hand(variables["codebook"], np.asarray(latents))
    assert_moved(output.collections["codebook"], expected)
    # Codes that nothing chose are counted as such, and stay in the averages.
    assert np.any(counts == 0)
    np.testing.assert_array_equal(output.sums["codes"], counts)
    # The codes are no parameters, and the loss has no term that moves them.
    assert "codebook" not in variables["params"]
    assert set(output.terms) == {"nll", "commitment"}
    total = output.terms["nll"] + 0.25 * output.terms["commitment"]
    np.testing.assert_allclose(output.per_example, total, rtol=1e-6)


def test_the_averages_decay_after_the_reduction_over_devices(ema):
    """Two parts of a batch, mapped: one decay of the old averages, the counts of both parts."""
    plain, variables, images = ema
    mapped = models.build("vqvae", (12, 16, 1), codebook="ema", axis_name="part", **EMA)
    parts = images.reshape(2, 2, 12, 16, 1)

    def step(part):
        return mapped.loss(variables, batch_of(part), keys_of(2), True).collections

    collections = jax.jit(jax.vmap(step, axis_name="part"))(parts)
    latents, _ = plain.module.apply(
        variables, images, train=True, method=VQVAE.encode, mutable=["batch_stats"]
    )
    expected, _ = averages_by_hand(variables["codebook"], np.asarray(latents))
    for part in (0, 1):
        assert_moved(jax.tree.map(lambda x, part=part: x[part], collections["codebook"]), expected)


# --- the start of the codebook ----------------------------------------------------------------


@pytest.mark.parametrize("codebook", ["gradient", "ema"])
def test_a_start_from_the_data_uses_every_code(codebook):
    """Six kinds of images, six codes: all are chosen, where random codes leave some dead."""
    options = {**EMA, "codebook": codebook}
    model = models.build("vqvae", (12, 16, 1), **options)
    variables = jax.jit(model.init)(parameter_key(0))
    grey = np.repeat(np.linspace(0, 1, 6, dtype=np.float32), 4)
    images = np.broadcast_to(grey[:, None, None, None], (24, 12, 16, 1))
    started = model.initialise(variables, [batch_of(images)] * 4)
    assert jax.tree.map(jnp.shape, dict(started)) == jax.tree.map(jnp.shape, dict(variables))
    run = jax.jit(lambda v: model.loss(v, batch_of(images), keys_of(24), True).sums["codes"])
    before, after = run(variables), run(started)
    assert float(before.sum()) == float(after.sum()) == 24 * 6 * 8
    assert int((after == 0).sum()) == 0
    assert int((before == 0).sum()) > 0
    others = {k: v for k, v in started["params"].items() if k != "codebook"}
    for name, value in others.items():
        jax.tree.map(np.testing.assert_array_equal, value, variables["params"][name])
    if codebook == "ema":
        moving = started["codebook"]
        np.testing.assert_array_equal(moving["sums"], moving["codes"] * moving["counts"][:, None])


# --- labels and refusals ----------------------------------------------------------------------


def test_only_the_codes_carry_the_label_of_the_codebook(loaded):
    labels = flatten_dict(loaded.model.param_labels(loaded.variables["params"]))
    assert {path for path, label in labels.items() if label == "codebook"} == {("codebook",)}
    assert set(labels.values()) == {"codebook", "default"}


@pytest.mark.parametrize(
    ("shape", "options", "sentence"),
    [
        ((100, 64, 3), {}, "images of 100 x 64 cannot be halved 3 times; .* multiples of 8"),
        ((64, 62, 3), {"downsampling": 2}, "halved 2 times; .* multiples of 4"),
        ((64, 64, 3), {"downsampling": 0}, "'model.downsampling' must be at least 1, not 0"),
        (
            (64, 64, 3),
            {"codebook": "fixed"},
            "'model.codebook' must be one of gradient, ema, not 'fixed'",
        ),
    ],
)
def test_impossible_options_are_refused(shape, options, sentence):
    with pytest.raises(UserError, match=sentence):
        models.build("vqvae", shape, **options)
