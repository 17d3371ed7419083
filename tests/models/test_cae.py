"""The convolutional autoencoder: PyTorch's values layer by layer, textures, options, refusals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from skimage.metrics import structural_similarity

from jaxad import models
from jaxad.data.batch import Batch
from jaxad.models import cae
from jaxad.run.errors import UserError

# The golden values are float64, ours float32: 20 layers deep, sums of up to 200 products, errors
# stay below a few parts in 1e6 of the largest entry.
CLOSE = 1e-5


def assert_close(ours, expected, tolerance=CLOSE):
    """Within ``tolerance`` of the largest entry."""
    assert np.shape(ours) == np.shape(expected)
    scale = float(np.max(np.abs(expected)))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * scale)


def batch_of(images):
    return Batch(images, np.arange(len(images), dtype=np.int32), np.ones(len(images), bool))


def keys_of(seed, count):
    return jax.random.split(jax.random.key(seed), count)


# --- against PyTorch --------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "halvings"), [("four", 4), ("five", 5)])
def test_every_layer_equals_the_table_in_pytorch(golden, case, halvings):
    """Four halvings are table 1 itself (128 pixels), five the MVTec paper's (256)."""
    values = golden("cae", case)
    shape = values.images.shape[1:]
    module = cae.ConvolutionalAutoencoder(shape, halvings, latent=4, width=3 / 32)
    run = jax.jit(lambda v, x: module.apply(v, x, capture_intermediates=True))
    images = np.float32(values.images[:1] / 255.0)
    _, state = run({"params": values.tree("weight")}, images)
    outputs = {
        name: layer["__call__"][0]
        for name, layer in state["intermediates"].items()
        if isinstance(layer, dict)
    }
    expected = values.activations("eval")
    assert set(outputs) == set(expected) and len(expected) == 2 * (halvings + 5)
    for name, output in expected.items():
        assert_close(outputs[name], output)


def test_the_default_is_table_1_at_full_width():
    """128 pixels in colour: kernel, input and output channels of every layer, and the code's."""
    model = models.build("cae", (128, 128, 3), latent=100)
    params = jax.eval_shape(model.init, jax.random.key(0))["params"]
    kernels = {name: layer["kernel"].shape for name, layer in params.items()}
    encoder = [(4, 3, 32), (4, 32, 32), (3, 32, 32), (4, 32, 64), (3, 64, 64), (4, 64, 128)]
    encoder += [(3, 128, 64), (3, 64, 32)]
    decoder = [(k, co, ci) for k, ci, co in reversed(encoder)]
    expected = {f"encoder_{i}": (k, k, ci, co) for i, (k, ci, co) in enumerate(encoder)}
    expected |= {f"decoder_{i}": (k, k, ci, co) for i, (k, ci, co) in enumerate(decoder)}
    expected |= {"code": (8, 8, 32, 100), "expand": (8, 8, 100, 32)}
    expected["to_image"] = expected.pop("decoder_7")
    assert kernels == expected


@pytest.fixture(scope="module")
def three(golden):
    """Three halvings through `build`: model, golden values and variables."""
    values = golden("cae", "three")
    model = models.build("cae", (64, 64, 1), loss="l2+ssim", latent=4, width=3 / 32)
    return model, values, {"params": values.tree("weight")}


def test_parameters_have_the_shapes_of_init(three):
    model, _, variables = three
    expected = jax.eval_shape(model.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, dict(expected))


def test_loss_terms_and_gradients_equal_pytorch(three):
    model, values, variables = three

    def loss(variables):
        output = model.loss(variables, batch_of(values.images), keys_of(0, 2), True)
        return jnp.mean(output.per_example), output

    gradients, output = jax.jit(jax.grad(loss, has_aux=True))(variables)
    expected = values.section("loss")
    assert set(output.terms) == set(expected)
    for name, term in expected.items():
        assert_close(output.terms[name], term)
    assert_close(output.per_example, expected["l2"] + expected["ssim"])
    gradients = flatten_dict(gradients["params"])
    for path, gradient in flatten_dict(values.tree("gradient")).items():
        # Sums over all pixels of terms of both signs: an order of magnitude less exact.
        assert_close(gradients[path], gradient, 1e-4)


def test_maps_equal_scikit_image(three):
    model, values, variables = three
    detection = jax.jit(model.detect)(variables, values.images[:1])
    expected = values.section("detect")
    assert_close(detection.reconstruction, expected.pop("reconstruction"))
    assert set(detection.maps) == set(expected)
    for name, anomaly_map in expected.items():
        # The variances of SSIM are differences of float32 moments.
        assert_close(detection.maps[name], anomaly_map, 1e-4)


# --- options ----------------------------------------------------------------------------------


def zeros(model):
    """Variables of which every parameter is 0: the output is that of the last non-linearity."""
    return jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(model.init, jax.random.key(0))
    )


@pytest.mark.parametrize(
    ("loss", "terms"), [("l2", {"l2"}), ("ssim", {"l2", "ssim"}), ("l2+ssim", {"l2", "ssim"})]
)
def test_loss_options_minimise_their_terms(loss, terms):
    """With all parameters 0 the reconstruction is sigmoid(0) = 1/2 everywhere."""
    model = models.build("cae", (64, 64, 2), loss=loss, latent=2, width=1 / 32)
    variables = zeros(model)
    image = np.random.default_rng(0).random((1, 64, 64, 2), np.float32)
    output = model.loss(variables, batch_of(image), keys_of(0, 1), True)
    half = np.full(image.shape[1:], 0.5, np.float32)
    similarity = structural_similarity(
        image[0], half, data_range=1.0, channel_axis=-1, gaussian_weights=True,
        sigma=1.5, use_sample_covariance=False, full=True,
    )[1][5:-5, 5:-5]  # fmt: skip
    expected = {"l2": np.mean(np.square(image - 0.5)), "ssim": 1 - np.mean(similarity)}
    assert set(output.terms) == terms
    for name in terms:
        np.testing.assert_allclose(output.terms[name], expected[name], rtol=1e-5)
    minimised = sum(expected[name] for name in loss.split("+"))
    np.testing.assert_allclose(output.per_example, minimised, rtol=1e-5)


def test_the_linear_output_is_the_logit_of_the_sigmoid_one(golden):
    values = golden("cae", "five")
    logits = values.activations("eval")["to_image"]
    linear = cae.ConvolutionalAutoencoder((32, 32, 3), 5, 4, 3 / 32, output="linear")
    images = np.float32(values.images[:1] / 255.0)
    assert_close(jax.jit(linear.apply)({"params": values.tree("weight")}, images), logits)
    model = models.build("cae", (64, 64, 1), output="linear", latent=2, width=1 / 32)
    variables = zeros(model)
    # A linear output leaves [0, 1]; what is shown and compared does not.
    variables["params"]["to_image"]["bias"] += 1.5
    detection = model.detect(variables, np.full((1, 64, 64, 1), 0.25, np.float32))
    np.testing.assert_array_equal(detection.reconstruction, 1.0)
    np.testing.assert_allclose(detection.maps["l2"], 0.75**2, rtol=1e-6)


def test_bfloat16_computes_in_bfloat16_and_returns_float32(golden):
    values = golden("cae", "five")
    module = cae.ConvolutionalAutoencoder((32, 32, 3), 5, 4, 3 / 32, "linear", jnp.bfloat16)
    images = np.float32(values.images[:1] / 255.0)
    ours = jax.jit(module.apply)({"params": values.tree("weight")}, images)
    assert ours.dtype == jnp.float32
    expected = values.activations("eval")["to_image"]
    difference = float(np.max(np.abs(ours - expected)) / np.max(np.abs(expected)))
    # 8 bits per number through 20 layers: neither float32's result nor something else.
    assert 1e-4 < difference < 0.05


# --- textures ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texture(golden):
    model = models.build(
        "cae",
        (80, 100, 1),
        loss="l2",
        output="linear",
        tile=64,
        tile_stride=24,
        latent=4,
        width=3 / 32,
    )
    return model, {"params": golden("cae", "three").tree("weight")}


def crop_energies(image, tile):
    """The mean square of every crop of an image ``(h, w)``, ``(h - tile + 1, w - tile + 1)``."""
    windows = np.lib.stride_tricks.sliding_window_view(image.astype(np.float64), (tile, tile))
    return np.mean(np.square(windows), axis=(2, 3))


def test_training_sees_one_random_crop_per_key(texture):
    """Reconstructed by 0, a crop's loss is its mean square, which tells where it was cut."""
    model, _ = texture
    count = 64
    image = np.random.default_rng(0).random((80, 100), np.float32)
    batch = batch_of(np.broadcast_to(image[None, :, :, None], (count, 80, 100, 1)))
    loss = jax.jit(lambda keys: model.loss(zeros(model), batch, keys, True).per_example)
    energies = np.asarray(loss(keys_of(0, count)))
    possible = crop_energies(image, 64).ravel()
    nearest = np.abs(possible[:, None] - energies[None, :]).min(axis=0)
    assert np.all(nearest < 1e-6 * energies), "every loss is that of a crop"
    # 17 x 37 places, 64 draws: hardly any place twice.
    assert len(np.unique(energies)) > 50
    np.testing.assert_array_equal(energies, loss(keys_of(0, count)))
    assert np.mean(energies == np.asarray(loss(keys_of(1, count)))) < 0.1


def test_validation_sees_the_middle(texture):
    model, _ = texture
    image = np.random.default_rng(0).random((80, 100), np.float32)
    output = model.loss(zeros(model), batch_of(image[None, :, :, None]), keys_of(0, 1), False)
    np.testing.assert_allclose(output.per_example, crop_energies(image, 64)[8, 18], rtol=1e-5)


def test_detection_averages_the_reconstructions_of_overlapping_tiles(texture):
    model, variables = texture
    images = np.random.default_rng(1).random((2, 80, 100, 1), np.float32)
    run = jax.jit(model.module.apply)
    total, covers = np.zeros(images.shape), np.zeros((1, 80, 100, 1))
    for row in (0, 16):  # the next stride, 24, would leave the image: moved back to its border
        for column in (0, 24, 36):
            place = (slice(None), slice(row, row + 64), slice(column, column + 64))
            total[place] += run(variables, images[place])
            covers[place] += 1
    expected = np.clip(total / covers, 0, 1)
    detection = jax.jit(model.detect)(variables, images)
    np.testing.assert_allclose(detection.reconstruction, expected, atol=1e-6)
    squared = np.mean(np.square(images - expected), axis=-1)
    np.testing.assert_allclose(detection.maps["l2"], squared, atol=1e-5)


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "options", "sentence"),
    [
        ((100, 64, 3), {}, "sides of 100 x 64 must be divisible by 8.* to 96,64"),
        ((256, 240, 3), {}, "divisible by 32; .* to 256,256"),
        ((4, 64, 3), {}, "sides of 4 x 64 must be divisible by 8; .* to 8,64"),
        ((128, 128, 3), {"tile": 100}, "sides of 100 x 100 must be divisible by 16"),
        ((64, 64, 3), {"tile": 128}, "tile may be at most as large as the image"),
        ((64, 64, 3), {"tile": 64, "tile_stride": 65}, "the stride as the tile"),
        (
            (64, 64, 3),
            {"tile": 64, "tile_stride": 0},
            "'model.tile_stride' must be at least 1, not 0",
        ),
        ((64, 64, 3), {"loss": "l1"}, "'model.loss' must be one of l2, ssim, l2[+]ssim, not 'l1'"),
        (
            (64, 64, 3),
            {"output": "tanh"},
            "'model.output' must be one of sigmoid, linear, not 'tanh'",
        ),
    ],
)
def test_impossible_options_are_refused(shape, options, sentence):
    with pytest.raises(UserError, match=sentence):
        models.build("cae", shape, **options)


@pytest.mark.parametrize(("side", "halvings"), [(64, 3), (128, 4), (256, 5), (512, 6)])
def test_sides_are_halved_to_eight(side, halvings):
    assert models.build("cae", (side, side, 3)).module.halvings == halvings
