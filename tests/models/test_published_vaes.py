"""VAE, VAE-GRF, ViT-VAE: the authors' modules layer by layer, weights, priors and maps.

The golden values are float64 (tests/golden/make_golden_vae.py), ours float32: over some 20 layers errors
stay below a few parts in 1e5 of the largest value of a layer.
"""

from __future__ import annotations

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from jaxad import models
from jaxad.convert.layout import (
    conv_to_flax,
    linear_to_flax,
    qkv_biases_to_flax,
    qkv_weights_to_flax,
)
from jaxad.data.batch import Batch
from jaxad.models.layers import variational
from jaxad.models.layers.resnet import ResNetTrunk

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "variational.npz"
EVERY = 97
CLOSE = 5e-5
# The code evaluates the likelihood through lambda with 1e-6 inside its logarithms, and takes the
# constant 0.49 for lambda in (0.49, 0.51): up to 1.4e-4 nats a value there, 2e-5 elsewhere.
LIKELIHOOD = 1.5e-4
NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
LAYER = {"weight": "kernel", "bias": "bias"}


class Golden:
    """One case, with the weights drawn again as the script drew them."""

    def __init__(self, case):
        with np.load(GOLDEN) as file:
            self.arrays = {
                name.removeprefix(f"{case}/"): file[name]
                for name in file.files
                if name.startswith(f"{case}/")
            }
            self.provenance = json.loads(str(file["provenance"]))
        if "weights" in self.arrays:
            rng = np.random.default_rng(int(self.arrays["seed"]))
            self.weights = {
                name: np.float32(offset + scale * rng.standard_normal(tuple(shape)))
                for name, shape, offset, scale in json.loads(str(self.arrays["weights"]))
            }
            self.images = np.float32(self.arrays["images"] / 255.0)

    def section(self, name):
        start = f"{name}/"
        return {k.removeprefix(start): v for k, v in self.arrays.items() if k.startswith(start)}


def conv_transpose_to_flax(weight):
    """The kernel of a transposed convolution, (in, out, h, w) to (h, w, in, out).

    PyTorch spreads the kernel as it is; ``lax.conv_transpose`` correlates with it over the dilated
    input, hence the turn by 180 degrees. PyTorch's padding ``p`` is ``k - 1 - p`` in Flax.
    """
    return weight.transpose(2, 3, 0, 1)[::-1, ::-1]


def variables_of(leaves):
    """Flax variables from ``{(layer, leaf): array}``."""
    statistics = {k: v for k, v in leaves.items() if k[-1] in ("mean", "var")}
    params = {k: v for k, v in leaves.items() if k not in statistics}
    return {"params": unflatten_dict(params), "batch_stats": unflatten_dict(statistics)}


def convolutional_variables(weights):
    """VAE-compare's names to ours."""
    leaves = {}
    for name, value in weights.items():
        part, _, rest = name.partition(".")
        rest, leaf = rest.rsplit(".", 1)
        if part == "conv_encoder" and rest.startswith("0."):
            path = ("encoder", "stem_conv" if rest == "0.0" else "stem_norm")
        elif part == "conv_encoder":
            stage, block, layer = rest.split(".", 2)
            layer = {"downsample.0": "shortcut_conv", "downsample.1": "shortcut_norm"}.get(
                layer, layer.replace("bn", "norm")
            )
            path = ("encoder", f"layer{stage}_{block}", layer)
        elif part == "final_encoder":
            path = ("to_latent",)
        elif part == "initial_decoder":
            path = ("from_latent" if rest == "0" else "from_latent_norm",)
        else:
            index, layer = rest.split(".")
            path = (f"up_{index}" if layer == "0" else f"up_norm_{index}",)
        if value.ndim == 4:
            transposed = part == "conv_decoder"
            value = conv_transpose_to_flax(value) if transposed else conv_to_flax(value)
            if part == "initial_decoder":  # (in, out, 1, 1)
                value = value.swapaxes(2, 3)
        leaves[*path, (NORM if "norm" in path[-1] else LAYER)[leaf]] = value
    return variables_of(leaves)


def vit_variables(weights):
    """The names of transformers' ViT module, with VAE-compare's decoder, to ours."""
    leaves = {}
    blocks = {name.split(".")[2] for name in weights if name.startswith("vit.layers.")}
    for name, value in weights.items():
        leaf = name.rsplit(".", 1)[-1]
        if name.startswith("conv_decoder."):
            _, index, layer, _ = name.split(".")
            if layer == "0":
                value = conv_transpose_to_flax(value) if value.ndim == 4 else value
                leaves[f"up_{index}", LAYER[leaf]] = value
            else:
                leaves[f"up_norm_{index}", NORM[leaf]] = value
        elif name.startswith("vit.layernorm."):
            leaves["encoder", "norm", NORM[leaf]] = value
        elif ".mlp." in name:
            _, _, block, _, layer, _ = name.split(".")
            value = linear_to_flax(value) if value.ndim == 2 else value
            leaves["encoder", f"block_{block}", "mlp", layer, LAYER[leaf]] = value
        elif ".layernorm_" in name:
            _, _, block, layer, _ = name.split(".")
            number = "norm1" if layer == "layernorm_before" else "norm2"
            leaves["encoder", f"block_{block}", number, NORM[leaf]] = value
    for block in blocks:
        start, path = f"vit.layers.{block}.attention.", ("encoder", f"block_{block}", "attention")
        get = lambda which, leaf, start=start: weights[f"{start}{which}_proj.{leaf}"]
        leaves[*path, "qkv", "kernel"] = qkv_weights_to_flax(*(get(w, "weight") for w in "qkv"))
        leaves[*path, "qkv", "bias"] = qkv_biases_to_flax(*(get(w, "bias") for w in "qkv"))
        leaves[*path, "out", "kernel"] = linear_to_flax(get("o", "weight"))
        leaves[*path, "out", "bias"] = get("o", "bias")
    embedding = "vit.embeddings."
    projection = f"{embedding}patch_embeddings.projection."
    leaves["encoder", "class_token"] = weights[f"{embedding}cls_token"]
    leaves["encoder", "positions"] = weights[f"{embedding}position_embeddings"]
    leaves["encoder", "patch_embedding", "kernel"] = conv_to_flax(weights[f"{projection}weight"])
    leaves["encoder", "patch_embedding", "bias"] = weights[f"{projection}bias"]
    return variables_of(leaves)


class Loaded:
    """A model with the authors' weights."""

    def __init__(self, case):
        self.golden = Golden(case)
        if case == "vae":
            self.model = models.build("vae", (64, 64, 3), latent=6, mean_clip=1e-5)
            self.variables = convolutional_variables(self.golden.weights)
        else:
            self.model = models.build("vit_vae", (224, 224, 3), depth=2, mean_clip=1e-5)
            self.variables = vit_variables(self.golden.weights)

    def outputs(self):
        """Layer -> output in evaluation."""
        module = self.model.module

        def run(variables, images):
            def encode_and_decode(module, images):
                return module.decode(module.encode(images, train=False).mean, train=False)

            return module.apply(
                variables, images, method=encode_and_decode, mutable=["intermediates"],
                capture_intermediates=True,
            )[1]["intermediates"]  # fmt: skip

        tree = jax.jit(run)(self.variables, self.golden.images)
        layers = {**tree, **tree["encoder"]}
        return {
            k: v["__call__"][0]
            for k, v in layers.items()
            if isinstance(v, dict) and "__call__" in v
        }


@pytest.fixture(scope="module", params=["vae", "vit"])
def loaded(request):
    return Loaded(request.param)


def assert_close(ours, expected, tolerance=CLOSE, name=""):
    assert np.shape(ours) == np.shape(expected), name
    scale = float(np.max(np.abs(expected)))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * scale, err_msg=name)


def batch_of(images):
    return Batch(images, np.arange(len(images), dtype=np.int32), np.ones(len(images), bool))


def keys_of(count):
    return jax.random.split(jax.random.key(0), count)


def test_the_variables_have_the_shapes_of_init(loaded):
    expected = jax.eval_shape(loaded.model.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, loaded.variables) == jax.tree.map(jnp.shape, dict(expected))


def test_every_layer_equals_the_authors(loaded):
    outputs, expected = loaded.outputs(), loaded.golden.section("eval")
    last = max(name for name in expected if name.startswith("up_"))
    for name, values in expected.items():
        if name == "stem":
            variables = {k: v["encoder"] for k, v in loaded.variables.items()}
            ours = ResNetTrunk(stages=0).apply(
                variables, jnp.asarray(loaded.golden.images), train=False
            )
        elif name == "embedding":
            continue  # with the class token in front: compared through block_0
        elif name == "from_latent" or (name.startswith("up_") and name != last):
            ours = jax.nn.relu(
                outputs[name.replace("up", "up_norm").replace("latent", "latent_norm")]
            )
        else:
            ours = outputs[name]
        assert_close(np.ravel(ours)[::EVERY], values, name=name)


def test_the_latents_equal_the_authors(loaded):
    encode = lambda v, x: loaded.model.module.apply(v, x, train=False, method="encode")
    posterior = jax.jit(encode)(loaded.variables, loaded.golden.images)
    for name, values in loaded.golden.section("latent").items():
        ours = getattr(posterior, name)
        step = ours.shape[-1] // values.shape[-1]
        assert_close(ours[..., :: step if step == 1 else 29], values, name=name)


def test_the_maps_equal_the_authors(loaded):
    expected = loaded.golden.section("detect")
    detection = jax.jit(loaded.model.detect)(loaded.variables, loaded.golden.images[:1])
    assert_close(detection.maps["mad"][0], expected["mad"], name="mad")
    shown = np.asarray(detection.reconstruction[0])
    full = expected["reconstruction"].shape == shown.shape
    pick = (lambda x: x) if full else (lambda x: np.ravel(x)[::EVERY])
    # Between lambda of 0.49 and 0.51 the code shows the mean at 0.49, up to 0.0034 off.
    low, high = 0.5 - 0.0034, 0.5 + 0.0034
    off = np.abs(pick(shown) - expected["reconstruction"])
    replaced = (pick(shown) > low) & (pick(shown) < high)
    assert 0 < replaced.mean() < 0.3
    assert off[~replaced].max() < 2e-5 and off[replaced].max() < 0.007
    assert shown.min() > 0.0868 and shown.max() < 0.9132  # the limit of lambda
    # Through the reconstruction, this passes on to its SSIM; on equal reconstructions, nothing.
    ssim = np.asarray(detection.maps["ssim"][0])
    np.testing.assert_allclose(pick(ssim), expected["ssim"], atol=0.03)
    product = detection.maps["mad"][0] * detection.maps["ssim"][0]
    np.testing.assert_allclose(detection.maps["mad*ssim"][0], product, rtol=1e-6)


def test_the_dissimilarity_of_equal_reconstructions_equals_the_authors():
    golden = Golden("vae")
    expected = golden.section("detect")
    pair = jnp.asarray(golden.images[:1]), jnp.asarray(expected["reconstruction"][None])
    ours = variational.structural_dissimilarity(*pair, window=11)
    # Product of three channels, values up to 2: float32 errors of 1e-5 each.
    np.testing.assert_allclose(ours[0], expected["ssim"], atol=2e-5)


def authors_terms(monkeypatch, model, variables, golden):
    """The terms of our loss in training, with the authors' latent noise."""
    noise = golden.arrays["noise"]
    if noise.ndim == 0:  # a seed, in PyTorch's layout
        noise = np.random.default_rng(int(noise)).standard_normal((2, 384, 14, 14))
        noise = np.float32(noise).transpose(0, 2, 3, 1)
    monkeypatch.setattr(
        variational,
        "draw",
        lambda posterior, keys: posterior.mean + jnp.exp(0.5 * posterior.log_variance) * noise,
    )
    output = jax.jit(model.loss, static_argnums=3)(
        variables, batch_of(golden.arrays["images"]), keys_of(2), True
    )
    return {name: float(np.mean(values)) for name, values in output.terms.items()}


def test_the_loss_equals_the_authors(loaded, monkeypatch):
    """VAE and ViT-VAE: likelihood summed over all values, KL averaged over positions."""
    terms = authors_terms(monkeypatch, loaded.model, loaded.variables, loaded.golden)
    expected = loaded.golden.section("loss")
    h, w, c = loaded.model.image_shape
    i, j, _ = loaded.golden.arrays["latent/mean"].shape[1:]
    assert abs(terms["nll"] + expected["rec_term"] / (h * w * c)) < LIKELIHOOD
    np.testing.assert_allclose(terms["kl"] * h * w * c / (i * j), -expected["-beta*kld"], rtol=2e-5)


@pytest.mark.parametrize(
    ("case", "family"),
    [("corr_id", "identity"), ("corr_m32", "matern32"), ("corr_exp", "exponential")],
)
def test_the_loss_of_the_field_prior_equals_the_authors(case, family, monkeypatch):
    """Likelihood and KL averaged over values and latents, the image's over pixels."""
    learn = "no" if family == "identity" else "image"
    model = models.build(
        "vae_grf", (64, 64, 3), latent=6, family=family, learn=learn, wrap="nearest"
    )
    golden, expected = Golden("vae"), Golden(case).section("loss")
    variables = convolutional_variables(golden.weights)
    logs = {n: jnp.float32(golden.provenance[n]) for n in ("log_range", "log_deviation")}
    variables["params"]["prior"] = logs
    terms = authors_terms(monkeypatch, model, variables, golden)
    assert abs(terms["nll"] + expected["rec_term"]) < LIKELIHOOD
    per_latent = terms["kl"] * (64 * 64 * 3) / (8 * 8 * 6)
    np.testing.assert_allclose(per_latent, -expected["-beta*kld"], rtol=2e-5)
    if learn == "image":
        # Of images in float32; the smallest eigenvalue of Matern 3/2 here is 2e-3.
        np.testing.assert_allclose(terms["image_nll"], -expected["llkh_prior"], rtol=2e-4)
    else:
        assert "image_nll" not in terms
