"""Own features and a small U-Net that was trained to find and undo drawn defects.

Two parts, fitted one after the other:

1. In closed form before the first step: :mod:`jaxad.models.own_features`, or with
   ``model.backbone`` :mod:`jaxad.models.feature_pca`, whose map ``residual`` is kept as it is, and
   principal axes of small images (:mod:`jaxad.models.layers.folded_pca`), which give every image a
   linear reconstruction.
2. By gradients: a U-Net (:mod:`jaxad.models.layers.restoring_network`) sees an image, its linear
   reconstruction and what this leaves, and gives the image as it should be and the probability that
   a pixel is defective. It is trained on defects drawn on good images within the step
   (:mod:`jaxad.models.layers.training_defects`).

No paper states the model as a whole. Networks that restore images with drawn defects and mark these
are published: V. Zavrtanik, M. Kristan, D. Skocaj, "DRAEM", ICCV 2021, with two networks and
textures of a foreign data set; H. M. Schlueter et al., "NSA", ECCV 2022, with parts of other images
blended in by Poisson editing. The loss of an image is ``10 focal + dice + 5 l1``: focal loss and
Dice of the probability against the mask, and the absolute error of the restored image, in which
defective pixels have the weight ``1 + model.defect_weight``. The weights are this library's choice.

Maps: ``residual``, that of the closed form; ``probability``; ``restoration``, the absolute
difference between the image and the restored one; ``residual*probability``, the residual times
``sqrt(probability + model.floor)``. The floor keeps the residual of what the network does not know,
parts in the wrong place above all. The reconstruction is the restored image.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from jaxad.data.batch import Batch
from jaxad.data.defects.kinds import KINDS
from jaxad.models import feature_pca, own_features
from jaxad.models.base import (
    Detection,
    LossOutput,
    Model,
    ModelOptions,
    Variables,
    apply,
    dtype_option,
    label_all_trainable,
    to_unit_float,
)
from jaxad.models.layers import folded_pca, training_defects
from jaxad.models.layers.feature_reconstruction import FeaturePCAOptions
from jaxad.models.layers.folded_pca import FOLDS
from jaxad.models.layers.restoring_network import RestoringNetwork
from jaxad.models.layers.whitened_patches import averaged
from jaxad.ops.arrays import AnyArray
from jaxad.ops.segmentation import dice_loss, focal_loss
from jaxad.run.errors import did_you_mean
from jaxad.run.options import option

GRID = 64
"""Positions along the shorter side that the network works on, at most twice as many."""

FOCAL_WEIGHT, L1_WEIGHT = 10.0, 5.0
"""Beside the Dice loss, whose weight is 1."""


@dataclasses.dataclass(frozen=True)
class RestoreOptions(ModelOptions):
    """Options of ``restore``."""

    backbone: str = option(
        "",
        "pretrained network whose features are reconstructed, one of feature_pca; empty: filters "
        "of the images, as of own_features",
    )
    width: int = option(
        16, "channels of the U-Net's finest level; twice as many at each coarser one", at_least=1
    )
    levels: int = option(3, "of the U-Net, each of half the positions", at_least=1)
    components: int = option(
        30, "axes of the linear reconstruction that the U-Net sees", at_least=1
    )
    kinds: str = option(
        "", "of defects drawn in training, with commas (`jaxad data defects`); empty: all"
    )
    good: float = option(
        0.25, "share of training images on which no defect is drawn", at_least=0, below=1
    )
    defect_weight: float = option(
        4.0, "additional weight of defective pixels in the restoration's error", at_least=0
    )
    gamma: float = option(2.0, "exponent of the focal loss; 0: cross-entropy", at_least=0)
    floor: float = option(
        0.3,
        "added to the probability before its root scales the residual",
        at_least=0,
        detection_only=True,
    )
    dtype: str = dtype_option("of the U-Net's computation")


def _kinds(names: str) -> tuple[str, ...]:
    """The kinds of defects of an option.

    Raises:
      ValueError: an unknown one.
    """
    kinds = tuple(name.strip() for name in names.split(",") if name.strip()) or tuple(KINDS)
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(
                f"model.kinds names {kind!r}, which is none of {', '.join(KINDS)}"
                + did_you_mean(kind, KINDS)
            )
    return kinds


class Restore:
    """The functions of the model; its variables are those of its parts.

    ``params`` are the U-Net's; the collections ``features`` (``features_...``: what a pretrained
    network has beside parameters), ``linear`` and ``donors`` are fitted once and stay.
    """

    def __init__(self, image_shape: tuple[int, int, int], options: RestoreOptions):
        """Builds the parts.

        Args:
          image_shape: ``(h, w, c)``.
          options: of the model.

        Raises:
          ValueError: images that do not fit, or an unknown kind of defect.
          UserError: an unknown backbone.
        """
        h, w, c = image_shape
        self.cell = max(2, min(h, w) // GRID)
        own = 1 if options.backbone else own_features.MULTIPLE
        multiple = math.lcm(own, self.cell * 2 ** (options.levels - 1))
        if h % multiple or w % multiple:
            raise ValueError(
                f"images of {h} x {w} do not part into the levels of the network; set "
                f"data.image_size to multiples of {multiple}"
            )
        self.kinds = _kinds(options.kinds)
        self.shape, self.options = image_shape, options
        self.small = (h // self.cell, w // self.cell, c)
        if options.backbone:
            of_network = FeaturePCAOptions(backbone=options.backbone)
            self.features = feature_pca.build(image_shape, of_network)
        else:
            self.features = own_features.build(image_shape, own_features.OwnFeaturesOptions())
        widths = tuple(options.width * 2**level for level in range(options.levels))
        self.network = RestoringNetwork(widths, self.cell, jnp.dtype(options.dtype))

    def init(self, key: Key[Array, ""]) -> Variables:
        """A U-Net as it is drawn, and parts that are not fitted."""
        of_features, of_network = jax.random.split(key)
        dimension = math.prod(self.small)
        blank = jnp.zeros((1, *self.shape)), jnp.zeros((1, *self.small))
        return {
            **self.network.init(of_network, *blank),
            **_stored(self.features.init(of_features)),
            "linear": folded_pca.blank(dimension, min(self.options.components, dimension - 1)),
            "donors": training_defects.blank(self.shape),
        }

    def initialise(
        self, variables: Variables, batches: Iterable[Batch], **backbone: Variables
    ) -> Variables:
        """Fits the parts in closed form.

        Args:
          variables: of which the U-Net's are kept.
          batches: of good images; iterated several times.
          **backbone: ``backbone=``, the variables of the pretrained network, where there is one.

        Raises:
          ValueError: too few images.
        """
        assert self.features.fit is not None
        components = variables["linear"]["axes"].shape[1]
        return {
            **variables,
            "linear": folded_pca.fit(batches, self.shape, components, self.cell),
            **_stored(self.features.fit(batches, **backbone)),
            "donors": training_defects.keep_donors(batches),
        }

    def restore(
        self,
        variables: Variables,
        images: Float[AnyArray, "b h w c"],
        folds: Int[Array, " b"],
    ) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w"]]:
        """Restored images, and the logits of the probability that a pixel is defective."""
        small = averaged(jnp.asarray(images), self.cell)
        linear = folded_pca.reconstruct(variables["linear"], small, folds)
        return apply(self.network, {"params": variables["params"]}, images, linear)

    def losses(
        self,
        restored: Float[Array, "b h w c"],
        logits: Float[Array, "b h w"],
        good: Float[Array, "b h w c"],
        masks: Bool[Array, "b h w"],
    ) -> dict[str, Float[Array, " b"]]:
        """The terms of the loss, not weighted.

        Args:
          restored: by the network.
          logits: likewise.
          good: the images before the defects were drawn.
          masks: of the defects.
        """
        mask = masks.astype(jnp.float32)
        weight = 1.0 + self.options.defect_weight * mask[..., None]
        focal = focal_loss(logits, mask, gamma=self.options.gamma)
        return {
            "focal": jnp.mean(focal, axis=(1, 2)),
            "dice": dice_loss(jax.nn.sigmoid(logits), mask),
            "l1": jnp.mean(weight * jnp.abs(restored - good), axis=(1, 2, 3)),
        }

    def loss(
        self, variables: Variables, batch: Batch, keys: Key[Array, " b"], train: bool
    ) -> LossOutput:
        """The loss of images with drawn defects; held-out images have them too, fixed ones."""
        good = to_unit_float(batch.image)
        drawn, masks = training_defects.draw_on(
            variables["donors"], good, keys, kinds=self.kinds, good=self.options.good
        )
        # The axes have seen training images, those of their own fold excepted.
        folds = jnp.asarray(batch.index) % FOLDS if train else jnp.full(len(good), FOLDS)
        terms = self.losses(*self.restore(variables, drawn, folds), good, masks)
        total = FOCAL_WEIGHT * terms["focal"] + terms["dice"] + L1_WEIGHT * terms["l1"]
        return LossOutput(total, terms, {}, {}, {})

    def detect(self, variables: Variables, images: Shaped[AnyArray, "b h w c"]) -> Detection:
        """The maps of the head of this file."""
        return self.detect_by(self.features.detect, variables, images)

    def trimmed(
        self, variables: Variables, compact: bool
    ) -> tuple[Callable[..., Detection], Variables]:
        """The same detection without what the closed form does not use, and without donors."""
        assert self.features.trimmed is not None
        alone, kept = self.features.trimmed(_of_features(variables), compact)
        needed = {name: variables[name] for name in ("params", "linear")}
        return functools.partial(self.detect_by, alone), {**needed, **_stored(kept)}

    def detect_by(
        self,
        detect_features: Callable[..., Detection],
        variables: Variables,
        images: Shaped[AnyArray, "b h w c"],
    ) -> Detection:
        """:meth:`detect` with the closed form's detection as it is given."""
        images = to_unit_float(images)
        residual = detect_features(_of_features(variables), images).maps["residual"]
        restored, logits = self.restore(variables, images, jnp.full(images.shape[0], FOLDS))
        probability, shown = jax.nn.sigmoid(logits), jnp.clip(restored, 0.0, 1.0)
        maps = {
            "residual*probability": residual * jnp.sqrt(probability + self.options.floor),
            "residual": residual,
            "probability": probability,
            "restoration": jnp.mean(jnp.abs(images - shown), axis=-1),
        }
        return Detection(maps, {}, shown)

    def diagnostics(self, variables: Variables, images: Array) -> dict[str, Array]:
        """The linear reconstructions, which the network sees beside the images."""
        small = averaged(to_unit_float(images), self.cell)
        folds = jnp.full(images.shape[0], FOLDS)
        linear = folded_pca.reconstruct(variables["linear"], small, folds)
        return {"linear_reconstruction": jnp.clip(linear, 0.0, 1.0)}


def _stored(of_features: Variables) -> dict[str, Any]:
    """Variables of the closed form as collections of this model."""
    return {
        "features" if name == "params" else f"features_{name}": tree
        for name, tree in of_features.items()
    }


def _of_features(variables: Variables) -> Variables:
    """What :func:`_stored` stored."""
    return {
        "params" if name == "features" else name.removeprefix("features_"): tree
        for name, tree in variables.items()
        if name == "features" or name.startswith("features_")
    }


def build(
    image_shape: tuple[int, int, int], options: RestoreOptions, *, axis_name: str | None = None
) -> Model:
    """Builds ``restore``.

    Args:
      image_shape: ``(h, w, c)``, c of 1 or 3, sides that the network's levels divide, and the
        backbone.
      options: of the model.
      axis_name: unused, nothing is reduced over devices inside the model.

    Raises:
      ValueError: images that do not fit, or an unknown kind of defect.
      UserError: an unknown backbone.
    """
    del axis_name
    parts = Restore(image_shape, options)
    return Model(
        module=parts.network,
        image_shape=image_shape,
        init=parts.init,
        loss=parts.loss,
        detect=parts.detect,
        trimmed=parts.trimmed,
        param_labels=label_all_trainable,
        initialise=parts.initialise,
        backbone=options.backbone,
        diagnostics=parts.diagnostics,
    )
