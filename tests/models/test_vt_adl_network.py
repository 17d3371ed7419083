"""The network of VT-ADL: the published modules on carried-over weights, and its start."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad import models
from jaxad.models.base import parameter_key
from jaxad.models.layers.vit import VisionTransformer
from jaxad.models.layers.vt_adl_network import Decoder, squash


def encoder_params(values):
    """student_transformer.ViT in our names and layouts."""
    weight = lambda name: values[f"weight/{name}"]
    linear = lambda name: {"kernel": weight(f"{name}.weight").T, "bias": weight(f"{name}.bias")}
    norm = lambda name: {"scale": weight(f"{name}.weight"), "bias": weight(f"{name}.bias")}
    patch = linear("patch_to_embedding")
    # Rows of a patch are (row, column, channel), channel fastest.
    params = {
        "patch_embedding": {**patch, "kernel": patch["kernel"].reshape(4, 4, 3, 16)},
        "class_token": weight("cls_token"),
        "positions": weight("pos_embedding"),
    }
    for i in range(2):
        attention, mlp = (f"transformer.layers.{i}.{j}.fn" for j in (0, 1))
        params[f"block_{i}"] = {
            "norm1": norm(f"{attention}.norm"),
            "attention": {
                "qkv": {"kernel": weight(f"{attention}.fn.to_qkv.weight").T},
                "out": linear(f"{attention}.fn.to_out.0"),
            },
            "norm2": norm(f"{mlp}.norm"),
            "mlp": {"fc1": linear(f"{mlp}.fn.net.0"), "fc2": linear(f"{mlp}.fn.net.2")},
        }
    return params


def test_the_transformer_equals_the_published_one_block_by_block(golden_values):
    values = golden_values("vt_adl", "transformer")
    model = models.build(
        "vt_adl",
        (20, 20, 3),
        patch=4,
        features=16,
        depth=2,
        heads=2,
        mlp_features=24,
        attention_scale="full",
        decoder="doubling",
        components=1,
    )
    encoder: VisionTransformer = model.module.encoder
    variables = jax.tree.map(jnp.asarray, {"params": encoder_params(values)})
    start = jax.eval_shape(model.init, parameter_key(0))["params"]["encoder"]
    assert jax.tree.map(jnp.shape, variables["params"]) == jax.tree.map(jnp.shape, start)
    images = jnp.asarray(values["images"])
    output, state = encoder.apply(
        variables, images, capture_intermediates=True, mutable=["intermediates"]
    )
    for i in range(2):
        ours = state["intermediates"][f"block_{i}"]["__call__"][0]
        # Golden values are float64, ours float32 through two blocks.
        np.testing.assert_allclose(ours, values[f"block_{i}"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output[:, 1:], values["output"], rtol=1e-4, atol=1e-5)
    # Scores by the length of a head, as everywhere else, are something else.
    usual = encoder.clone(attention_scale=None).apply(variables, images)
    assert not np.allclose(usual[:, 1:], values["output"], rtol=1e-2, atol=1e-2)


def test_the_capsule_is_a_linear_map_and_a_squash(golden_values):
    """spatial.DigitCaps with its three rounds of routing: (1, vectors, out, in) weights."""
    values = golden_values("vt_adl", "capsule")
    kernel = values["weight/W"][0].transpose(0, 2, 1).reshape(-1, 32)
    flat = values["tokens"].reshape(2, -1)
    # The module computes in float32.
    np.testing.assert_allclose(
        squash(jnp.asarray(flat @ kernel)), values["output"], rtol=1e-4, atol=1e-6
    )
    assert np.linalg.norm(values["output"], axis=-1).max() < 1


def test_squash_keeps_directions_and_has_a_gradient_at_zero():
    x = np.float32([[3.0, 4.0], [0.03, 0.04], [0.0, 0.0]])
    lengths = np.array([5.0, 0.05, 0.0])
    expected = x * (lengths / (1 + lengths**2))[:, None]
    np.testing.assert_allclose(squash(jnp.asarray(x)), expected, rtol=1e-6)
    jacobian = jax.jacobian(squash)(jnp.zeros(3))
    np.testing.assert_allclose(jacobian, 0, atol=1e-11)


def decoder_variables(values):
    params, statistics = {}, {}
    for i in range(6):
        layer = f"weight/decoder2.{3 * i}"
        params[f"up_{i}"] = {
            # (i, o, h, w), and turned around.
            "kernel": values[f"{layer}.weight"].transpose(2, 3, 0, 1)[::-1, ::-1].copy(),
            "bias": values[f"{layer}.bias"],
        }
        if i < 5:
            norm = f"weight/decoder2.{3 * i + 1}"
            params[f"norm_{i}"] = {
                "scale": values[f"{norm}.weight"],
                "bias": values[f"{norm}.bias"],
            }
            statistics[f"norm_{i}"] = {
                "mean": values[f"{norm}.running_mean"],
                "var": values[f"{norm}.running_var"],
            }
    return {"params": params, "batch_stats": statistics}


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_decoder_equals_the_published_one(mode, golden_values):
    """8 x 8 x 8 to 512 x 512 by 15, 49, 245, 497, 502; some pixels of every layer."""
    values = golden_values("vt_adl", "decoder")
    variables, train = decoder_variables(values), mode == "train"

    @jax.jit
    def run(variables, codes):
        return Decoder((512, 512, 3), "published").apply(
            variables,
            codes,
            train=train,
            capture_intermediates=True,
            mutable=["intermediates", "batch_stats"],
        )

    codes = values["codes"] if train else values["codes"][:1]
    output, state = run(variables, codes)
    layers = {f"{mode}/{3 * i}": f"up_{i}" for i in range(6)}
    for name, expected in values.items():
        if name in layers or name == f"{mode}/16":
            ours = output
            if name in layers:
                ours = state["intermediates"][layers[name]]["__call__"][0]
            step = 1 + ours.shape[1] // 13
            scale = np.abs(expected).max()
            # Sums of up to 600 float32 products, six layers deep.
            np.testing.assert_allclose(
                ours[:1, ::step, ::step], expected, rtol=0, atol=2e-5 * scale, err_msg=name
            )


def test_the_encoder_starts_as_in_the_public_code():
    model = models.build(
        "vt_adl",
        (16, 16, 3),
        patch=8,
        features=64,
        depth=1,
        heads=2,
        mlp_features=256,
        decoder="doubling",
        components=3,
    )
    encoder = jax.jit(model.init)(parameter_key(0))["params"]["encoder"]
    block = encoder["block_0"]
    for kernel, fan_in in (
        (block["mlp"]["fc1"]["kernel"], 64),
        (block["mlp"]["fc2"]["kernel"], 256),
        (encoder["patch_embedding"]["kernel"], 8 * 8 * 3),
    ):
        # Thousands of draws: the deviation of a standard deviation is about 1 %.
        assert float(jnp.std(kernel)) == pytest.approx(math.sqrt(2 / fan_in), rel=0.05)
    assert float(jnp.std(encoder["positions"])) == pytest.approx(1.0, rel=0.2)
