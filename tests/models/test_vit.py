"""The vision transformer against public PyTorch implementations, by tests/golden/make_golden_vit.py."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from scipy.stats import norm

from jaxad.models.layers.vit import PatchEmbedding, SelfAttention, VisionTransformer, gelu
from jaxad.ops.attention import SCORE_BYTES
from jaxad.ops.positions import sincos_positions

FILE = pathlib.Path(__file__).parent.parent / "golden" / "vit.npz"
SMALL = {"depth": 2, "heads": 3, "patch": 8, "image_size": (32, 32)}
CASES = {
    "timm": VisionTransformer(features=24, **SMALL),
    "hf": VisionTransformer(features=12, epsilon=1e-12, **SMALL),
    "vt_adl": VisionTransformer(
        features=12,
        mlp_features=16,
        epsilon=1e-5,
        qkv_bias=False,
        attention_scale=12**-0.5,
        final_norm=False,
        **(SMALL | {"image_size": (40, 40)}),
    ),
}
# Ours is float32, theirs float64: two blocks of sums over at most 192 products of order 1.
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def golden(case: str, section: str) -> dict:
    with np.load(FILE) as file:
        start = f"{case}/{section}/"
        return {k.removeprefix(start): file[k] for k in file.files if k.startswith(start)}


def inputs(case: str) -> jnp.ndarray:
    with np.load(FILE) as file:
        return jnp.asarray(file[f"{case}/images"] / 255.0, jnp.float32)


def variables(case: str) -> dict:
    return {"params": unflatten_dict(golden(case, "weight"), sep="/")}


def assert_same_tree(network, tree, images):
    ours = jax.eval_shape(network.init, jax.random.key(0), images)["params"]
    shapes = lambda tree: {path: leaf.shape for path, leaf in flatten_dict(tree, sep="/").items()}
    assert shapes(ours) == shapes(tree)


def stages(network, images):
    """Tokens after each layer."""
    tokens = network.prepend_class_token(network.embed(images))
    result = {"embedding": tokens}
    for i, block in enumerate(network.block):
        result[f"block_{i}"] = tokens = block(tokens)
    return result | {"end": network(images)}


@pytest.mark.parametrize("case", CASES)
def test_every_layer_equals_pytorchs(case):
    network, tree, images = CASES[case], variables(case), inputs(case)
    assert_same_tree(network, tree["params"], images)
    ours = jax.jit(lambda v, x: network.apply(v, x, method=stages))(tree, images)
    expected = golden(case, "layer")
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        actual = ours[name][:, 1:] if case == "vt_adl" and name == "end" else ours[name]
        np.testing.assert_allclose(actual, value, **CLOSE, err_msg=name)


@pytest.mark.parametrize("remat", [False, True])
def test_gradients_equal_pytorchs(remat):
    network = CASES["vt_adl"].clone(remat=remat)
    loss = lambda v, x: jnp.mean(network.apply(v, x)[:, 1:] ** 2)
    gradients = jax.jit(jax.grad(loss))(variables("vt_adl"), inputs("vt_adl"))["params"]
    expected = golden("vt_adl", "gradient")
    assert flatten_dict(gradients, sep="/").keys() == expected.keys()
    for name, actual in flatten_dict(gradients, sep="/").items():
        # float32 rounding relative to the largest entry of each array.
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(
            actual, expected[name], rtol=1e-3, atol=1e-4 * scale, err_msg=name
        )


def test_gelu_is_x_times_the_normal_distribution_function():
    x = np.linspace(-12.0, 12.0, 2001).astype(np.float32)
    wide = x.astype(np.float64)
    # erf is good to two ulp of 1; what multiplies it is x / 2.
    np.testing.assert_allclose(gelu(jnp.asarray(x)), wide * norm.cdf(wide), rtol=1e-6, atol=1e-6)
    slope = jax.vmap(jax.grad(gelu))(jnp.asarray([-1e20, *x, 1e20]))
    expected = norm.cdf(wide) + wide * norm.pdf(wide)
    np.testing.assert_allclose(slope[1:-1], expected, rtol=1e-6, atol=2e-6)
    np.testing.assert_array_equal(slope[np.array([0, -1])], [0.0, 1.0])


def test_parts_make_the_encoder_of_a_masked_autoencoder():
    network = VisionTransformer(features=12, position="sincos", **SMALL)
    tree, images = variables("mae"), inputs("mae")
    stored = tree["params"].pop("positions")
    np.testing.assert_allclose(stored[0, 1:], sincos_positions((4, 4), 12), atol=1e-6)
    np.testing.assert_array_equal(stored[0, 0], 0.0)
    assert_same_tree(network, tree["params"], images)
    with np.load(FILE) as file:
        visible = file["mae/visible"]

    def encode(network, images):
        tokens = jnp.take_along_axis(network.embed(images), visible[..., None], axis=1)
        tokens = network.prepend_class_token(tokens)
        return tokens, network.transform(tokens)

    start, end = jax.jit(lambda v, x: network.apply(v, x, method=encode))(tree, images)
    np.testing.assert_allclose(start, golden("mae", "layer")["embedding"], **CLOSE)
    np.testing.assert_allclose(end, golden("mae", "layer")["end"], **CLOSE)


def test_patch_embedding_is_a_strided_convolution():
    images = jax.random.normal(jax.random.key(0), (2, 12, 8, 3))
    layer = PatchEmbedding(5, 4)
    params = layer.init(jax.random.key(1), images)
    kernel = params["params"]["kernel"]
    expected = jax.lax.conv_general_dilated(
        images, kernel, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    actual = layer.apply(params, images)
    np.testing.assert_allclose(actual, expected.reshape(2, 6, 5), atol=1e-5)
    # Xavier's width for the flattened patch, 48 values.
    limit = np.sqrt(6 / (48 + 5))
    assert 0.9 * limit < np.abs(kernel).max() <= limit


def test_without_positions_and_class_token_tokens_may_be_permuted():
    network = VisionTransformer(features=12, class_token=False, position_std=0.0, **SMALL)
    images = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    tree = jax.jit(network.init)(jax.random.key(1), images)
    order = np.random.default_rng(0).permutation(16)

    def both(network, images):
        tokens = network.embed(images)
        return network.transform(tokens)[:, order], network.transform(tokens[:, order])

    permuted, of_permuted = jax.jit(lambda v, x: network.apply(v, x, method=both))(tree, images)
    assert permuted.shape == (1, 16, 12)
    np.testing.assert_allclose(permuted, of_permuted, atol=1e-5)


def test_bfloat16_keeps_parameters_and_tokens_in_float32():
    exact, network = CASES["timm"], CASES["timm"].clone(dtype=jnp.bfloat16)
    tree, images = variables("timm"), inputs("timm")
    started = jax.eval_shape(network.init, jax.random.key(0), images)
    assert {leaf.dtype for leaf in jax.tree.leaves(started)} == {jnp.dtype("float32")}
    rough = jax.jit(network.apply)(tree, images)
    assert rough.dtype == jnp.float32
    # bfloat16 has 8 bits; the end is normalised, so errors are of that order against 1.
    error = np.abs(rough - jax.jit(exact.apply)(tree, images))
    assert 1e-4 < np.mean(error) < 0.03
    gradient = jax.jit(jax.grad(lambda t: jnp.mean(network.apply(t, images) ** 2)))(tree)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_no_layer_keeps_many_scores():
    images = jnp.zeros((4, 64, 64, 3))

    def temporary_bytes(depth):
        network = VisionTransformer(12, depth, 3, patch=2, image_size=(64, 64))
        tree = jax.eval_shape(network.init, jax.random.key(0), images)
        loss = lambda v, x: jnp.mean(network.apply(v, x) ** 2)
        compiled = jax.jit(jax.grad(loss)).lower(tree, images).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    scores = 4 * 3 * 1025**2 * 4
    assert scores > SCORE_BYTES
    # A layer keeps some dozens of numbers per token and feature; by the chain rule it would keep
    # two and more arrays of scores.
    assert temporary_bytes(5) - temporary_bytes(2) < 3 * 0.3 * scores


def test_what_does_not_fit_is_refused():
    tokens = jnp.zeros((1, 2, 10))
    with pytest.raises(ValueError, match="10 features cannot be shared by 3 heads"):
        SelfAttention(3).init(jax.random.key(0), tokens)
    build = lambda **options: VisionTransformer(features=12, **(SMALL | options)).init(
        jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    )
    with pytest.raises(ValueError, match="cannot be cut into patches"):
        build(image_size=(32, 30))
    with pytest.raises(ValueError, match="takes images of 40 x 32"):
        build(image_size=(40, 32))
    with pytest.raises(ValueError, match="position is 'rotary'"):
        build(position="rotary")
