"""Linear reconstruction of features that are learned from the good images alone.

:mod:`jaxad.models.feature_pca` without a pretrained network: its place is taken by a pyramid of
two layers of whitened patches (:mod:`jaxad.models.layers.whitened_patches`), whose filters are
principal axes of patches of the good images. Everything is in closed form. What follows is the
same: ridge reconstruction of the whole feature map, and the whitened residual at each position,
beside what good images leave when each is reconstructed from the others
(:mod:`jaxad.models.layers.feature_fit`).

No paper states the model; the parts are published, and named in those modules.

Images that are left out, for thresholds, are left out of the reconstruction and the covariances, as
for ``feature_pca``, but not of the filters: a few thousand numbers that the patches of all images
estimate together.

Map: ``residual``, as of ``feature_pca``, about 1 on good images. Image scores are reductions of it.
Shown as the reconstruction is what the weights of the reconstruction make of the training images,
at half the side.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp

from jaxad.data.batch import Batch
from jaxad.models.base import Model, ModelOptions, Variables, parameter_key
from jaxad.models.feature_pca import model_of, position_channels
from jaxad.models.layers.feature_fit import Layout
from jaxad.models.layers.feature_fitting import fit as fit_features
from jaxad.models.layers.feature_reconstruction import FeaturePCA, FeaturePCAOptions
from jaxad.models.layers.feature_solve import COVARIANCES, solve
from jaxad.models.layers.whitened_patches import (
    FIRST_SIDE,
    SECOND_SIDE,
    WhitenedPatches,
    fit_patches,
)
from jaxad.run.options import option

CELLS = (4, 4, 2)
"""Sides of the cells over which features are averaged, in pixels of each level of the pyramid."""

MULTIPLE = 8
"""Sides of images are multiples of it: cells at every level are whole."""

PICTURE_STRIDE = 2
"""Pixels of the image for one of the pictures that are kept."""


@dataclasses.dataclass(frozen=True)
class OwnFeaturesOptions(ModelOptions):
    """Options of ``own_features``."""

    first: int = option(12, "filters of the first layer, of patches of 5 x 5", at_least=1)
    second: int = option(24, "filters of the second layer, of patches of 3 x 3", at_least=1)
    components: int = option(
        100,
        "axes of the reconstruction; fewer where the images span fewer; 0: the mean",
        at_least=0,
    )
    ridge: float = option(0.03, "shrinkage of the axes, in units of the mean variance", above=0)
    covariance: str = option(
        "auto",
        "of residuals; auto: position where the good images support it, else pooled",
        choices=("auto", "pooled", "position"),
    )
    plain: float = option(
        0.5,
        "share of the residual that is not whitened in the map, a geometric mean of both",
        at_least=0,
        below=1,
    )
    memory_limit_mb: int = option(
        1024,
        "features held by the fit; of more images a random part is the basis of reconstruction",
        at_least=1,
    )

    def of_fit(self) -> FeaturePCAOptions:
        """The options of the fit behind the features."""
        shared = ("components", "ridge", "covariance", "plain", "memory_limit_mb")
        return FeaturePCAOptions(**{name: getattr(self, name) for name in shared})


def build(
    image_shape: tuple[int, int, int],
    options: OwnFeaturesOptions,
    *,
    axis_name: str | None = None,
) -> Model:
    """Builds ``own_features``.

    Args:
      image_shape: ``(h, w, c)``, c of 1 or 3, sides that are multiples of 8.
      options: of the model.
      axis_name: unused, nothing is reduced over devices inside the model.

    Raises:
      ValueError: images that do not fit, or more filters than patches have values.
    """
    del axis_name
    h, w, c = image_shape
    if h % MULTIPLE or w % MULTIPLE:
        raise ValueError(
            f"images of {h} x {w} do not part into cells at three scales; set data.image_size to "
            f"multiples of {MULTIPLE}"
        )
    if c not in (1, 3):
        raise ValueError(f"images of {c} channels are neither gray nor RGB; set data.channels=3")
    for layer, filters, values in (
        ("first", options.first, FIRST_SIDE**2 * 3),
        ("second", options.second, SECOND_SIDE**2 * 2 * options.first),
    ):
        if filters > values:
            raise ValueError(
                f"model.{layer} is {filters}, but its patches have {values} values and no more "
                "filters than that; take fewer"
            )
    network = WhitenedPatches(options.first, options.second, cells=CELLS)
    sides = [2**level * cell for level, cell in enumerate(CELLS)]
    channels = 2 * (options.first + options.second)
    layout = Layout(tuple((h // side, w // side, channels) for side in sides))
    of_fit = options.of_fit()
    module = FeaturePCA(
        backbone=network,
        layout=layout,
        picture=(h // PICTURE_STRIDE, w // PICTURE_STRIDE, c),
        components=min(options.components, layout.values - 1),
        pooled=options.covariance != "position",
        channels=position_channels(layout, of_fit),
        plain=options.plain,
    )

    def learn(batches: Iterable[Batch]) -> Variables:
        drawn = jax.jit(network.init)(parameter_key(0), jnp.zeros((1, h, w, 3)))
        return fit_patches(network, drawn, batches)

    def fit(batches: Iterable[Batch]) -> Variables:
        return fit_features(module, of_fit, batches, backbone=learn(batches))

    model = model_of(module, of_fit, image_shape)._replace(fit=fit)
    if options.covariance not in COVARIANCES:
        return model
    return model._replace(solve=functools.partial(solve, module, of_fit), learn_backbone=learn)
