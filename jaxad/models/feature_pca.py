"""Linear reconstruction of the feature map of a pretrained network, in closed form.

As :mod:`jaxad.models.pca` describes good images by their mean and principal axes, this describes
the feature maps that a frozen network gives of them, as one vector per image; and it asks of what
is left at each position whether that is usual for good images. No paper states this model as a
whole; its parts are published:

* The reconstruction of a feature map by principal axes and its squared residual as the map: N. A.
  Ahuja et al., "Probabilistic Modeling of Deep Features for Out-of-Distribution and Adversarial
  Detection", 2019, and I. J. Ndiour et al., "FRE: A Fast Method For Anomaly Detection And
  Segmentation", 2022. Here the axes are weighted by ridge regression, and residuals of good images
  are those that the other images leave on each (:mod:`jaxad.models.layers.feature_fit`).
* Mahalanobis distances of features: T. Defard et al., "PaDiM", ICPR workshops 2021, with a normal
  density of 100 random channels at each position. Here the densities are of residuals.

The options make the members of this family:

* ``covariance=pooled``: residuals of all channels are whitened by one covariance, which all images
  and positions estimate together; ``position``: by one per position, on random channels, shrunk to
  the pooled one; ``auto``: the latter where there are at least as many good images as channels of
  it, and images left out are likelier under it;
* ``covariance=none``: the plain squared residual, FRE's map;
* ``plain``: the geometric mean of the whitened map and that one, which outlines thin defects better
  than the former and separates images better than the latter;
* ``components=0`` and ``covariance=position``: a normal density per position, as PaDiM has it.
  (PaDiM adds 0.01 to the diagonal of each covariance; here it is shrunk to the pooled one.)
* ``components=0`` and ``covariance=shared``: one mean and one subspace for the channels of all
  positions, as FRE and DFM have them for vectors of features; for parts that may lie anywhere. The
  map is the squared residual outside the fewest axes that hold ``share`` of the variance.

Map: ``residual``, a mean over channels of squared, whitened residuals, brought from the finest grid
of features to the image's size bilinearly; about 1 on good images. Image scores are reductions of
it. The network's maps that are finer than 8 pixels are averaged to that.

There is no reconstruction of the image. Shown in its place is what the weights of the
reconstruction make of the training images, at a quarter of the side: a mean of good images, which
follows the pose and the brightness of the image as far as its features tell them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from jaxad.data.batch import Batch
from jaxad.models.base import (
    Detection,
    LossOutput,
    Model,
    Variables,
    apply,
    label_all_trainable,
    to_unit_float,
)
from jaxad.models.layers.backbones import Backbone, backbone, check_sides
from jaxad.models.layers.feature_fit import Layout
from jaxad.models.layers.feature_fitting import fit, left_out
from jaxad.models.layers.feature_reconstruction import FeaturePCA, FeaturePCAOptions, to_image
from jaxad.models.layers.feature_solve import COVARIANCES, solve
from jaxad.models.layers.feature_trimmed import trimmed
from jaxad.ops.arrays import AnyArray

FINEST_STRIDE = 8
"""Pixels between positions of the finest map that is kept."""

PICTURE_STRIDE = 4
"""Pixels of the image for one of the pictures that are kept."""

CHANNEL_SEED = 0
"""Of the random channels of the covariances of positions."""


def layout_of(network: Backbone, size: tuple[int, int], *, stages: int = 0) -> Layout:
    """The maps of a backbone for images of a size, as they are kept.

    Args:
      network: whose maps they are.
      size: (height, width) of the images.
      stages: how many of the maps, from the finest; 0: all.
    """
    taps = network.taps[: stages or None]
    strides = [max(tap.stride, FINEST_STRIDE) for tap in taps]
    return Layout(
        tuple(
            (size[0] // stride, size[1] // stride, tap.channels)
            for stride, tap in zip(strides, taps, strict=True)
        )
    )


def build(
    image_shape: tuple[int, int, int],
    options: FeaturePCAOptions,
    *,
    axis_name: str | None = None,
) -> Model:
    """Builds ``feature_pca``.

    Args:
      image_shape: ``(h, w, c)``, c of 1 or 3, sides that the backbone divides.
      options: of the model.
      axis_name: unused, nothing is reduced over devices inside the model.

    Raises:
      ValueError: options that do not fit together, or the images.
      UserError: an unknown backbone.
    """
    del axis_name
    h, w, c = image_shape
    network = backbone(options.backbone)
    check_sides(options.backbone, (h, w))
    if options.covariance == "shared" and options.components:
        raise ValueError(
            "model.covariance=shared describes all positions by one subspace and reconstructs no "
            "image; set model.components=0"
        )
    if options.plain and options.covariance in ("none", "shared"):
        raise ValueError(
            f"model.plain={options.plain} adds the plain residual to a whitened one, and with "
            f"model.covariance={options.covariance} none is whitened; set model.plain=0"
        )
    if options.stages > len(network.taps):
        raise ValueError(
            f"model.stages is {options.stages}, but {options.backbone} has {len(network.taps)} "
            "maps; give fewer, or 0 for all"
        )
    layout = layout_of(network, (h, w), stages=options.stages)
    module = FeaturePCA(
        backbone=network.module,
        layout=layout,
        picture=(-(-h // PICTURE_STRIDE), -(-w // PICTURE_STRIDE), c),
        components=min(options.components, layout.values - 1),
        pooled=options.covariance != "position",
        channels=position_channels(layout, options),
        plain=options.plain,
    )
    model = model_of(module, options, image_shape)._replace(backbone=options.backbone)
    if options.covariance not in COVARIANCES:
        return model
    return model._replace(solve=functools.partial(solve, module, options))


def model_of(
    module: FeaturePCA, options: FeaturePCAOptions, image_shape: tuple[int, int, int]
) -> Model:
    """The functions of a model, whatever its network is.

    Args:
      module: with its network.
      options: of the fit.
      image_shape: ``(h, w, c)``.
    """
    h, w, c = image_shape
    layout = module.layout

    def init(key):
        return module.init(key, jnp.zeros((1, h, w, c)), method="initialise")

    def loss(variables, batch: Batch, keys, train: bool) -> LossOutput:
        del keys, train  # nothing is drawn, nothing but parameters changes
        residuals, _ = apply(module, variables, to_unit_float(batch.image))
        squares = jnp.square(residuals * variables["params"]["deviation"][None])
        squared = jnp.sum(squares, axis=1) / layout.channels
        return LossOutput(squared, {"l2": squared}, {}, {}, {})

    return Model(
        module=module,
        image_shape=image_shape,
        init=init,
        loss=loss,
        detect=functools.partial(detect, module, image_shape),
        trimmed=functools.partial(_trimmed, module, image_shape),
        param_labels=label_all_trainable,
        fit=functools.partial(fit, module, options),
        left_out=functools.partial(left_out, module, options, (h, w)),
        diagnostics=lambda variables, images: _describe(variables, module.picture),
    )


def detect(
    module: FeaturePCA,
    image_shape: tuple[int, int, int],
    variables: Variables,
    images: Shaped[AnyArray, "b h w c"],
) -> Detection:
    """The map and the picture of a model."""
    residuals, pictures = apply(module, variables, to_unit_float(images))
    squares = apply(module, variables, residuals, method="distances")
    residual = to_image(squares, image_shape[:2])
    reconstruction = jax.image.resize(pictures, (images.shape[0], *image_shape), "linear")
    return Detection({"residual": residual}, {}, jnp.clip(reconstruction, 0.0, 1.0))


def _trimmed(
    module: FeaturePCA, image_shape: tuple[int, int, int], variables: Variables, compact: bool
) -> tuple[Callable[..., Detection], Variables]:
    own, kept = trimmed(module, variables, compact=compact)
    return functools.partial(detect, own, image_shape), kept


def position_channels(layout: Layout, options: FeaturePCAOptions) -> tuple[int, ...]:
    """The channels of the covariances of positions, drawn at random; () where there are none."""
    if options.covariance not in ("auto", "position"):
        return ()
    drawn = np.random.default_rng(CHANNEL_SEED).permutation(layout.channels)
    return tuple(sorted(drawn[: options.position_channels].tolist()))


def _describe(variables: Variables, picture: tuple[int, int, int]) -> dict[str, Array]:
    """What was fitted; it does not depend on images."""
    params = variables["params"]
    shown = {"mean": params["picture_mean"].reshape(1, *picture)}
    if "shrinkage" in params:
        shown["weight_of_each_axis"] = params["shrinkage"]
    if "by_position" in params:
        shown["covariance_of_each_position_is_used"] = params["by_position"]
    return shown
