"""Tables of the families: every key has its place, and the networks give PyTorch's values."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxad.convert.families import EFFICIENTNET_LITE, FAMILIES, family
from jaxad.convert.mapping import map_weights, plan_mapping
from jaxad.convert.reading import open_weights
from jaxad.models.layers.resnet import ResNetTrunk
from jaxad.models.layers.vit import Transformer, VisionTransformer
from jaxad.run.errors import UserError

FILES = {
    "timm-vit": "timm_vit.pth",
    "hf-vit": "hf_vit",
    "mae": "mae.pth",
    "hf-mae": "hf_mae",
}
GOLDEN = {"timm-vit": "timm_vit", "hf-vit": "hf_vit", "mae": "mae", "hf-mae": "hf_mae"}
SIZES = {
    "base": {"features": 768, "depth": 12, "heads": 12, "patch": 16},
    "large": {"features": 1024, "depth": 24, "heads": 16, "patch": 16},
    "huge": {"features": 1280, "depth": 32, "heads": 16, "patch": 14},
}


@pytest.fixture(scope="module")
def states(files, full_size, draw_weights, as_state):
    """Family -> state dict: the projects' own files, and drawn weights of whole networks."""
    found = {name: open_weights(files / file).state for name, file in FILES.items()}
    drawn = ("resnet18", *EFFICIENTNET_LITE, "dinov2", "hf-dinov2")
    return found | {name: as_state(draw_weights(full_size[name])) for name in drawn}


@pytest.fixture(scope="module")
def trees(states):
    """Family -> {collection: {submodule: tree}}."""
    found = {}
    for name in FAMILIES:
        leaves = map_weights(states[name], family(name, stages=3), source=name).leaves
        found[name] = unflatten_dict({tuple(p.split("/")): leaf for p, leaf in leaves.items()})
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_every_key_comes_back(states, to_torch, name):
    """Round trip: from the Flax leaf alone, the rule's inverse gives every source back."""
    plan = plan_mapping(states[name], family(name), source=name)
    leaves = map_weights(states[name], family(name), source=name).leaves
    back = {}
    for entry in plan.entries:
        parts = to_torch(entry.rule, leaves[entry.path])
        back.update(zip(entry.sources, parts, strict=True))
    assert set(back) | set(plan.dropped) == set(plan.state)
    for key, array in back.items():
        np.testing.assert_array_equal(array, plan.state[key].read(), err_msg=key)


@pytest.mark.parametrize("name", FILES)
def test_tokens_are_those_of_the_pytorch_network(trees, values, name):
    epsilon = family(name).epsilon
    encoder = VisionTransformer(
        features=16, depth=2, heads=2, patch=4, image_size=(12, 12), epsilon=epsilon
    )
    params = jax.tree.map(jnp.asarray, trees[name]["params"]["encoder"])
    tokens = encoder.apply({"params": params}, jnp.asarray(values["images"]))
    # float32 through two blocks; the tokens are of order 1
    np.testing.assert_allclose(tokens, values[f"{GOLDEN[name]}/tokens"], atol=2e-5)


@pytest.mark.parametrize("name", ["mae", "hf-mae"])
def test_predictions_are_those_of_the_pytorch_decoder(trees, values, name):
    """The decoder written out from its parts; nothing is masked."""
    params = jax.tree.map(jnp.asarray, trees[name]["params"]["decoder"])
    dense = lambda key, x: nn.Dense(params[key]["kernel"].shape[1]).apply(
        {"params": params[key]}, x
    )
    tokens = dense("embed", values[f"{GOLDEN[name]}/tokens"]) + params["positions"]
    stack = Transformer(features=8, depth=1, heads=2, epsilon=family(name).epsilon)
    own = {key: params[key] for key in ("block_0", "norm")}
    prediction = dense("predict", stack.apply({"params": own}, tokens))[:, 1:]
    np.testing.assert_allclose(prediction, values[f"{GOLDEN[name]}/prediction"], atol=5e-5)


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_features_are_those_of_torchvisions_resnet(states, values, stages):
    leaves = map_weights(states["resnet18"], family("resnet18", stages=stages), source="x").leaves
    tree = unflatten_dict({tuple(p.split("/")): leaf for p, leaf in leaves.items()})
    variables = {collection: modules["encoder"] for collection, modules in tree.items()}
    images = jnp.asarray(values["resnet18/images"])
    found = ResNetTrunk(stages).apply(variables, images, train=False)
    expected = values[f"resnet18/layer{stages}"]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


class Shape:
    """A tensor of which only the shape is asked."""

    def __init__(self, shape):
        self.shape = shape

    def read(self):
        raise AssertionError("a plan needs no numbers")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["timm-vit", "mae"])
def test_the_public_sizes_fit_by_their_shapes(full_size, name, size):
    """Every key of B/16, L/16 and H/14, without their numbers."""
    state = {key: Shape(shape) for key, shape in full_size[f"{name}/{size}"].items()}
    plan = plan_mapping(state, family(name), source=name)
    found = {
        entry.path: entry.rule.to_flax(
            *(np.broadcast_to(np.float32(0), state[key].shape) for key in entry.sources)
        ).shape
        for entry in plan.entries
    }
    encoder = VisionTransformer(image_size=(224, 224), **SIZES[size])
    images = jnp.zeros((1, 224, 224, 3))
    shapes = jax.eval_shape(lambda: encoder.init(jax.random.key(0), images))["params"]
    expected = {"/".join(p): leaf.shape for p, leaf in flatten_dict(shapes).items()}
    prefix = "params/encoder/"
    of_encoder = {p.removeprefix(prefix): s for p, s in found.items() if p.startswith(prefix)}
    assert of_encoder == expected
    patch = SIZES[size]["patch"]
    if name == "mae":
        assert plan.blocks == {"encoder": SIZES[size]["depth"], "decoder": 8}
        assert found["params/decoder/predict/kernel"] == (512, patch * patch * 3)


def test_the_later_stages_of_a_resnet_are_dropped_by_name(states):
    dropped = plan_mapping(states["resnet18"], family("resnet18"), source="x").dropped
    assert dropped["layer3.0.conv1.weight"] == "the encoder ends after layer2"
    assert dropped["fc.weight"] == "the classifier"
    assert not [key for key in dropped if key.startswith(("conv1", "layer1", "layer2"))
                and not key.endswith("num_batches_tracked")]  # fmt: skip


def test_an_older_resnet_without_counters_serves_too(states):
    state = {k: v for k, v in states["resnet18"].items() if not k.endswith("num_batches_tracked")}
    assert len(state) < len(states["resnet18"])
    older = plan_mapping(state, family("resnet18"), source="x")
    newer = plan_mapping(states["resnet18"], family("resnet18"), source="x")
    assert older.entries == newer.entries


@pytest.mark.parametrize("name", FAMILIES)
def test_each_missing_key_and_each_left_over_key_is_named(states, name):
    state = dict(states[name])
    plan = plan_mapping(state, family(name), source="x")
    for key in sorted(plan.state)[::7]:
        if key in plan.dropped:
            continue
        own = next(k for k, value in state.items() if value is plan.state[key])
        less = {k: v for k, v in state.items() if k != own}
        with pytest.raises(UserError, match="missing: " + key.replace(".", r"\.")):
            plan_mapping(less, family(name), source="x")
    more = {**state, "b.gamma": state[own], "a.gamma": state[own]}
    with pytest.raises(UserError, match=r"no place: a\.gamma, b\.gamma\. Nothing was written"):
        plan_mapping(more, family(name), source="x")


def test_a_missing_block_is_no_smaller_network(states):
    """Blocks 0 and 2 without 1: the third has no place, and the second is missing."""
    state = {k.replace("blocks.1.", "blocks.2."): v for k, v in states["timm-vit"].items()}
    with pytest.raises(UserError, match=r"no place: blocks\.2\..*missing: blocks\.1\."):
        plan_mapping(state, family("timm-vit"), source="x")


def test_an_encoder_only_mae_says_what_is_missing(states):
    state = {k: v for k, v in states["mae"].items() if "decoder" not in k and k != "mask_token"}
    plan = plan_mapping(state, family("mae"), source="x")
    assert "no decoder" in plan.absent["decoder"] and plan.blocks == {"encoder": 2}
    assert all(entry.path.startswith("params/encoder/") for entry in plan.entries)
    # Half a decoder is no encoder-only file.
    with pytest.raises(UserError, match="decoder_blocks"):
        plan_mapping({**state, "mask_token": state["cls_token"]}, family("mae"), source="x")


@pytest.mark.parametrize("name", ["mae", "timm-vit"])
def test_a_fine_tuned_classifier_is_refused_with_the_reason(states, name):
    state = {k.replace("norm.weight", "fc_norm.weight") if k == "norm.weight" else k: v
             for k, v in states["timm-vit"].items()}  # fmt: skip
    with pytest.raises(UserError, match="fc_norm in place of norm"):
        plan_mapping(state, family(name), source="x")


def test_both_spellings_of_hugging_face_are_read(states):
    """Without `vit.` (a bare encoder), and with the decoder's name of older files."""
    state = {
        k.removeprefix("vit.").replace("decoder_encoder.layer", "decoder_layers"): v
        for k, v in states["hf-mae"].items()
    }
    assert "decoder.decoder_layers.0.layernorm_before.weight" in state
    ours = plan_mapping(states["hf-mae"], family("hf-mae"), source="x")
    assert set(plan_mapping(state, family("hf-mae"), source="x").state) == set(ours.state)
    with pytest.raises(UserError, match="twice, once as"):
        plan_mapping({**state, **states["hf-mae"]}, family("hf-mae"), source="x")


def test_values_of_no_use_are_refused_by_key(states, as_state):
    arrays = {key: value.read() for key, value in states["timm-vit"].items()}
    for bad, reason in (
        (np.full(16, np.nan, np.float32), "not finite"),
        (np.full(16, 1e300), "not finite"),
        (np.zeros(16, np.int64), "int64, not real numbers"),
        (np.zeros((16, 1), np.float32), r"\(16, 1\); it should have 1 dimensions"),
    ):
        state = as_state({**arrays, "blocks.1.norm1.bias": bad})
        with pytest.raises(UserError, match=rf"blocks\.1\.norm1\.bias .*{reason}"):
            map_weights(state, family("timm-vit"), source="x")


KEYS = {
    "blocks.11.ls1.gamma": "a DINOv2, or another ViT with layer scale",
    "encoder.layer.11.layer_scale1.lambda1": "a DINOv2 of Hugging Face",
    "dist_token": "a distilled DeiT",
    "vision_model.embeddings.position_embedding.weight": "a CLIP or SigLIP",
    "layers.0.blocks.0.attn.relative_position_bias_table": "a Swin transformer",
    "layer1.0.conv3.weight": "a ResNet of bottleneck blocks",
}
"""Of files of timm, torchvision and transformers."""


@pytest.mark.parametrize("key", KEYS)
def test_a_file_of_another_kind_is_called_by_its_name(states, key):
    state = {**states["timm-vit"], key: states["timm-vit"]["cls_token"]}
    with pytest.raises(UserError) as raised:
        plan_mapping(state, family("timm-vit"), source="x")
    assert f"it looks like {KEYS[key]}" in str(raised.value)
    assert "no place" not in str(raised.value) and len(str(raised.value)) < 200


@pytest.mark.parametrize(
    "given, fits", [("mae", "hf-mae"), ("hf-vit", "timm-vit"), ("timm-vit", "dinov2")]
)
def test_the_family_that_fits_is_named(states, given, fits):
    with pytest.raises(UserError, match=f"--from={given} expects.*; did you mean --from={fits}"):
        plan_mapping(states[fits], family(given), source="x")


def test_a_long_list_is_shortened_with_a_count(states):
    with pytest.raises(UserError, match=r"and \d+ more") as raised:
        plan_mapping(states["resnet18"], family("timm-vit"), source="x")
    assert len(str(raised.value)) < 500
