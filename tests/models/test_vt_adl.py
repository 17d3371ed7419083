"""VT-ADL: the published modules on carried-over weights, the density's run-away, its options."""

from __future__ import annotations

import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxad.config import load_config
from jaxad.data.batch import Batch
from jaxad.models import vt_adl
from jaxad.models.base import parameter_key
from jaxad.models.mixture_head import MixtureHead
from jaxad.models.vit import VisionTransformer
from jaxad.models.vt_adl import Decoder, mean_ssim, squash
from jaxad.ops import mixture_density

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "vt_adl.npz"
SMALL = {
    "patch": 8,
    "features": 8,
    "depth": 1,
    "heads": 2,
    "mlp_features": 16,
    "decoder": "doubling",
    "components": 3,
}


def golden(case):
    """The arrays of a case; kernels stored as a grid of int8 are multiplied out."""
    with np.load(GOLDEN) as file:
        values = {
            k.removeprefix(f"{case}/"): file[k] for k in file.files if k.startswith(f"{case}/")
        }
    for name in [n for n in values if n.endswith(".int8")]:
        stem = name.removesuffix(".int8")
        values[stem] = values.pop(name) * values.pop(f"{stem}.scale")
    return values


def images(shape=(3, 16, 16, 3), seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def batch_of(pictures):
    return Batch(pictures, np.arange(len(pictures), dtype=np.int32), np.ones(len(pictures), bool))


def keys(count=3):
    return jax.random.split(jax.random.key(0), count)


def loss_of(model, variables, train):
    """Of three random images, compiled."""
    return jax.jit(lambda v: model.loss(v, batch_of(images()), keys(), train))(variables)


@pytest.fixture(scope="module")
def small():
    model = vt_adl.build((16, 16, 3), **SMALL)
    return model, jax.jit(model.init)(parameter_key(0))


# --- against the published modules ------------------------------------------------------------


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


def test_the_transformer_equals_the_published_one_block_by_block():
    values = golden("transformer")
    model = vt_adl.build(
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
    variables = {"params": encoder_params(values)}
    start = jax.eval_shape(model.init, parameter_key(0))["params"]["encoder"]
    assert jax.tree.map(jnp.shape, variables["params"]) == jax.tree.map(jnp.shape, start)
    output, state = encoder.apply(
        variables, values["images"], capture_intermediates=True, mutable=["intermediates"]
    )
    for i in range(2):
        ours = state["intermediates"][f"block_{i}"]["__call__"][0]
        # Golden values are float64, ours float32 through two blocks.
        np.testing.assert_allclose(ours, values[f"block_{i}"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output[:, 1:], values["output"], rtol=1e-4, atol=1e-5)
    # Scores by the length of a head, as everywhere else, are something else.
    usual = encoder.clone(attention_scale=None).apply(variables, values["images"])
    assert not np.allclose(usual[:, 1:], values["output"], rtol=1e-2, atol=1e-2)


def test_the_capsule_is_a_linear_map_and_a_squash():
    """spatial.DigitCaps with its three rounds of routing: (1, vectors, out, in) weights."""
    values = golden("capsule")
    kernel = values["weight/W"][0].transpose(0, 2, 1).reshape(-1, 32)
    flat = values["tokens"].reshape(2, -1)
    # The module computes in float32.
    np.testing.assert_allclose(squash(flat @ kernel), values["output"], rtol=1e-4, atol=1e-6)
    assert np.linalg.norm(values["output"], axis=-1).max() < 1


def test_squash_keeps_directions_and_has_a_gradient_at_zero():
    x = np.float32([[3.0, 4.0], [0.03, 0.04], [0.0, 0.0]])
    lengths = np.array([5.0, 0.05, 0.0])
    expected = x * (lengths / (1 + lengths**2))[:, None]
    np.testing.assert_allclose(squash(x), expected, rtol=1e-6)
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
def test_the_decoder_equals_the_published_one(mode):
    """8 x 8 x 8 to 512 x 512 by 15, 49, 245, 497, 502; some pixels of every layer."""
    values = golden("decoder")
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


def density_params(values):
    """(d k, d) with the component fastest, to (d, k, d)."""
    by_component = lambda name: values[f"weight/{name}"].reshape(8, 3, 8).transpose(2, 1, 0)
    return {
        "weights": {"kernel": values["weight/pi.weight"].T},
        "means": {"kernel": by_component("mu.weight")},
        "variances": {"kernel": by_component("sigma_sq.weight")},
    }


def test_the_published_density_and_its_gradient_equal_the_published_ones():
    values = golden("density")
    head = MixtureHead(3, published=True)
    variables = {"params": density_params(values)}

    def loss(tokens):
        logits, log_densities, log_variances = head.apply(variables, tokens, tokens)
        each = mixture_density.expected_component_nll(logits, log_densities, dimensions=8)
        return jnp.mean(jnp.sum(each, axis=1)), (logits, log_variances, each)

    tokens = values["tokens"]
    gradient, (logits, log_variances, each) = jax.jit(jax.grad(loss, has_aux=True))(tokens)
    np.testing.assert_allclose(jax.nn.softmax(logits), values["weights"], rtol=1e-5)
    published = values["log_variances"].swapaxes(-1, -2)
    np.testing.assert_allclose(log_variances, published, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(each, values["per_patch"], rtol=1e-5)
    np.testing.assert_allclose(loss(tokens)[0], values["loss"], rtol=1e-5)
    np.testing.assert_allclose(gradient, values["gradient_tokens"], rtol=1e-4, atol=1e-5)
    assert published.min() >= 0, "a softplus taken as logarithm: no variance below 1"


def test_similarity_equals_the_published_one_with_zeros_beyond_the_border():
    values = golden("ssim")
    ours = jax.jit(mean_ssim)(values["a"], values["b"])
    # theirs are differences of float32 moments.
    np.testing.assert_allclose(ours, values["ssim"], rtol=2e-5)


# --- the likelihood that has no maximum -------------------------------------------------------


def best_likelihood(floor, noise, steps=400):
    """Mean negative log-likelihood of fixed tokens given themselves, after training the head."""
    draw = np.random.default_rng(0)
    tokens = np.float32(np.abs(draw.normal(size=(4, 8, 4))))
    head = MixtureHead(2, variance_floor=floor)
    params = head.init(parameter_key(0), tokens, tokens)
    optimizer = optax.adam(1e-2)

    def loss(params, key):
        condition = tokens + noise * jax.random.normal(key, tokens.shape)
        logits, log_densities, _ = head.apply(params, condition, tokens)
        return -jnp.mean(mixture_density.log_likelihood(logits, log_densities))

    def step(carry, key):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, key)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), value

    start = (params, optimizer.init(params))
    keys_ = jax.random.split(jax.random.key(1), steps)
    _, values = jax.jit(lambda c: jax.lax.scan(step, c, keys_))(start)
    return np.asarray(values)


def test_without_a_floor_the_likelihood_grows_without_end():
    """Target and condition are one: means copy it, variances fall, and nothing stops them."""
    values = best_likelihood(0.0, 0.0, steps=2000)
    assert np.all(np.isfinite(values))
    best = np.minimum.accumulate(values)
    early, later, last = best[[200, 1000, 1999]]
    # When it falls depends on rounding; that it goes on falling does not.
    assert early - later > 0.5 and later - last > 0.5 and early - last > 6, (early, later, last)


def test_a_floor_bounds_the_likelihood_and_noise_keeps_it_from_the_bound():
    """With every variance at its floor f and the mean at the target: d / 2 log(2 pi f)."""
    bound = 4 / 2 * math.log(2 * math.pi * 0.04)
    still, noisy = best_likelihood(0.04, 0.0), best_likelihood(0.04, 0.2)
    assert bound <= still.min() + 1e-4
    assert still[-50:].mean() < noisy[-50:].mean() - 0.3


def test_eq_8_as_printed_would_make_normal_data_unlikely():
    """An arg min of the log-likelihood drives it down; its negative is what is minimised."""
    y, logits = jnp.zeros((5, 2)), jnp.zeros(1)
    likelihood = lambda mean: jnp.mean(
        mixture_density.log_likelihood(
            logits, mixture_density.diagonal_log_densities(y, mean, jnp.zeros((1, 2)))
        )
    )
    mean = jnp.ones((1, 2))
    gradient = jax.grad(likelihood)(mean)
    assert float(likelihood(mean - 0.1 * gradient)) < float(likelihood(mean)), "as printed"
    assert float(likelihood(mean + 0.1 * gradient)) > float(likelihood(mean)), "what is meant"


# --- loss, maps and scores --------------------------------------------------------------------


def test_the_loss_adds_up_with_the_right_sign_of_similarity(small):
    model, variables = small
    output = loss_of(model, variables, False)
    terms = output.terms
    total = 5 * terms["mse"] + 0.5 * terms["ssim"] + terms["nll"]
    np.testing.assert_allclose(output.per_example, total, rtol=1e-5)
    shown = jax.jit(model.module.apply)(variables, images())[0]
    np.testing.assert_allclose(terms["ssim"], 1 - mean_ssim(images(), shown), rtol=1e-5)
    # As printed, eq. 9 adds the similarity: an equal image would cost the most.
    assert float(mean_ssim(images(), images()).min()) == pytest.approx(1.0, abs=1e-5)
    assert np.all(np.isfinite(terms["log_variance"])) and np.all(terms["embedding_norm"] > 0)


def test_noise_is_for_training_and_on_the_condition_alone(small):
    model, variables = small
    quiet = vt_adl.build((16, 16, 3), **SMALL, noise=0.0)
    output = {
        (name, train): loss_of(m, variables, train).terms
        for name, m in (("noisy", model), ("quiet", quiet))
        for train in (True, False)
    }
    np.testing.assert_allclose(
        output["noisy", False]["nll"], output["quiet", False]["nll"], rtol=1e-6
    )
    assert np.all(output["noisy", True]["nll"] != output["quiet", True]["nll"])
    np.testing.assert_allclose(
        output["noisy", True]["mse"], output["quiet", True]["mse"], rtol=1e-6
    )
    published = {
        noise: loss_of(
            vt_adl.build((16, 16, 3), **SMALL, density="published", noise=noise), variables, True
        ).terms["mse"]
        for noise in (0.0, 0.2)
    }
    assert np.all(published[0.0] != published[0.2]), "the code decodes noisy embeddings"


def test_stop_gradient_keeps_the_likelihood_from_moving_its_target(small):
    _, variables = small

    def gradient(**options):
        model = vt_adl.build(
            (16, 16, 3), **SMALL, mse_weight=0.0, ssim_weight=0.0, noise=0.0, **options
        )
        loss = lambda p: jnp.mean(
            model.loss({**variables, "params": p}, batch_of(images()), keys(), False).per_example
        )
        return jax.jit(jax.grad(loss))(variables["params"])["encoder"]["positions"]

    assert not np.allclose(gradient(stop_gradient=True), gradient(), rtol=1e-2)
    # Through the condition a gradient still flows.
    assert float(jnp.abs(gradient(stop_gradient=True)).max()) > 0


@pytest.mark.parametrize("density", ["likelihood", "published"])
def test_maps_and_scores_follow_the_patches(density):
    model = vt_adl.build((16, 32, 3), **SMALL, density=density)
    variables = jax.jit(model.init)(parameter_key(0))
    pictures = images((2, 16, 32, 3))
    found = jax.jit(model.detect)(variables, pictures)
    told = jax.jit(model.diagnostics)(variables, pictures)
    assert told["patch_loss"].shape == (2, 2, 4)
    # Align corners: the corner patches' values stand in the corners.
    corners = found.maps["nll"][:, ::15, ::31]
    np.testing.assert_allclose(corners, told["patch_loss"][:, :, ::3], rtol=1e-5)
    shown = jax.jit(model.module.apply)(variables, pictures)[0]
    mse, similarity = np.square(pictures - shown).mean((1, 2, 3)), mean_ssim(pictures, shown)
    worst = told["patch_loss"].max((1, 2))
    expected = {"reconstruction": mse + 1 - similarity}
    expected["reconstruction+nll"] = expected["reconstruction"] + worst
    if density == "published":
        expected["published"] = mse + similarity + worst
    assert set(found.scores) == set(expected)
    for name, score in expected.items():
        np.testing.assert_allclose(found.scores[name], score, rtol=1e-4, err_msg=name)
    assert float(told["component_counts"].sum()) == 2 * 8


def test_full_covariances_have_finite_gradients_and_another_likelihood(small):
    model = vt_adl.build((16, 16, 3), **{**SMALL, "features": 4}, covariance="full")
    variables = jax.jit(model.init)(parameter_key(0))
    assert variables["params"]["density"]["covariances"]["kernel"].shape == (4, 3, 10)
    flat = np.full((3, 16, 16, 3), 0.5, np.float32)
    for pictures in (images(), flat):
        loss = lambda p, x=pictures: jnp.mean(
            model.loss({**variables, "params": p}, batch_of(x), keys(), True).per_example
        )
        gradient = jax.jit(jax.grad(loss))(variables["params"])
        assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradient))


# --- sizes, start and refusals ----------------------------------------------------------------


def test_the_paper_variant_has_the_sizes_of_the_paper():
    config = load_config("vt_adl:paper")
    options = config.model.to_dict()
    options.pop("name")
    assert (config.train.learning_rate, config.train.weight_decay) == (1e-4, 1e-4)
    assert (config.train.batch_size, config.train.epochs) == (8, 400)
    model = vt_adl.build((*config.data.image_size, 3), **options)
    shapes = jax.eval_shape(model.init, parameter_key(0))["params"]
    assert shapes["encoder"]["positions"].shape == (1, 65, 512)
    assert "norm" not in shapes["encoder"] and "block_5" in shapes["encoder"]
    assert shapes["capsule"]["kernel"].shape == (32768, 512)
    head = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["density"]))
    assert head == 512 * 150 + 2 * 512 * 512 * 150


def test_the_encoder_starts_as_in_the_public_code():
    model = vt_adl.build((16, 16, 3), **{**SMALL, "features": 64, "mlp_features": 256})
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


def test_parts_carry_their_labels(small):
    model, variables = small
    labels = model.param_labels(variables["params"])
    assert set(jax.tree.leaves(labels["density"])) == {"density"}
    assert set(jax.tree.leaves(labels["encoder"])) == {"encoder"}
    assert set(jax.tree.leaves(labels["capsule"])) == {"default"}


@pytest.mark.parametrize(
    ("shape", "options", "sentence"),
    [
        ((16, 16, 3), {"decoder": "published"}, "makes images of 512 x 512, not of 16 x 16"),
        ((24, 40, 3), {"patch": 4, "decoder": "mirror"}, "model.decoder is 'mirror'"),
        ((34, 64, 3), {"patch": 2}, "sides of 34 x 64 must be divisible by 4"),
        ((16, 16, 3), {"covariance": "tied"}, "model.covariance is 'tied'"),
        ((16, 16, 3), {"components": 0}, "model.components is 0"),
        ((16, 16, 3), {"density": "published", "covariance": "full"}, "diagonal covariances only"),
        (
            (512, 512, 3),
            {"features": 512, "components": 150, "covariance": "full"},
            "takes 10,085,990,400 parameters",
        ),
    ],
)
def test_impossible_options_are_refused(shape, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        vt_adl.build(shape, **{**SMALL, **options})
