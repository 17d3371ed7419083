"""The Flax module and the options of :mod:`jaxad.models.feature_pca`."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from jaxad.models.base import ModelOptions
from jaxad.models.layers import feature_covariance, feature_fit
from jaxad.models.layers.feature_fit import Layout
from jaxad.models.layers.feature_passes import in_colour, to_vectors
from jaxad.run.options import option


class FeaturePCA(nn.Module):
    """A frozen network, the reconstruction of its maps, and the density of what is left.

    Attributes:
      backbone: images in [0, 1] to feature maps.
      layout: of the maps.
      picture: ``(rows, columns, channels)`` of the pictures that stand for a reconstruction.
      components: axes of the reconstruction; 0: the mean alone.
      pooled: whether residuals of all channels are mapped by one matrix.
      channels: those of the covariances of positions; none: there are no such covariances.
      plain: share of the plain residual in the map.
      alone: whether residuals are of ``channels`` alone, for detection that needs no others; the
        axes are there a second time, of these channels.
    """

    backbone: nn.Module
    layout: Layout
    picture: tuple[int, int, int]
    components: int
    pooled: bool
    channels: tuple[int, ...]
    plain: float = 0.0
    alone: bool = False

    def setup(self):
        """Declares the parameters."""
        values, d, k = self.layout.values, self.layout.channels, self.components
        rows, columns, colours = self.picture
        zeros, ones = nn.initializers.zeros, nn.initializers.ones
        self.mean = self.param("mean", zeros, (values,))
        self.deviation = self.param("deviation", ones, (values,))
        self.picture_mean = self.param("picture_mean", zeros, (rows * columns * colours,))
        if k:
            self.axes = self.param("axes", zeros, (k, values))
            self.shrinkage = self.param("shrinkage", zeros, (k,))
            self.picture_axes = self.param("picture_axes", zeros, (k, rows * columns * colours))
            if self.alone:
                judged = self.layout.part(self.channels).values
                self.judged_axes = self.param("judged_axes", zeros, (k, judged))
        if self.pooled:
            self.whitening = self.param("whitening", lambda _, n: jnp.eye(n), d)
        if self.channels:
            p, q = self.layout.grid[0] * self.layout.grid[1], len(self.channels)
            self.factors = self.param("factors", lambda _: jnp.broadcast_to(jnp.eye(q), (p, q, q)))
            # 1 where the covariances of positions are used, 0 where the pooled one is.
            self.by_position = self.param("by_position", zeros, ())
        if self.plain:
            self.level = self.param("level", ones, ())

    def initialise(self, images: Float[Array, "b h w c"]) -> Float[Array, "b i j"]:
        """Calls everything once."""
        return self.distances(self(images)[0])

    def __call__(
        self, images: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b v"], Float[Array, "b h2 w2 c"]]:
        """What the reconstruction leaves of standardised features, and the picture of it."""
        vectors = to_vectors(self.layout, self.backbone(in_colour(images)))
        # The network stays as it is.
        rows = (jax.lax.stop_gradient(vectors) - self.mean[None]) / self.deviation[None]
        picture = jnp.broadcast_to(self.picture_mean, (rows.shape[0], *self.picture_mean.shape))
        if self.components:
            codes = feature_fit.codes_of(rows, self.axes, self.shrinkage)
            if self.alone:
                rows = rows[:, self.layout.columns(self.channels)]
            axes = self.judged_axes if self.alone else self.axes
            rows = rows - feature_fit.back_from(codes, axes)
            picture = picture + codes.T @ self.picture_axes
        return rows, picture.reshape(-1, *self.picture)

    def distances(self, residuals: Float[Array, "b v"]) -> Float[Array, "b i j"]:
        """The mean over channels of squared, whitened residuals, on the finest grid."""
        layout = self.layout.part(self.channels) if self.alone else self.layout
        fine = layout.on_finest_grid(residuals)

        def pooled():
            white = jnp.matmul(fine, self.whitening, precision=feature_fit.MATMUL_PRECISION)
            return jnp.mean(jnp.square(white), axis=-1)

        def by_position():
            some = fine if self.alone else fine[:, :, np.array(self.channels)]
            return jnp.mean(
                jnp.square(feature_covariance.whiten_positions(some, self.factors)), axis=-1
            )

        if self.channels and self.pooled:
            squares = jax.lax.cond(self.by_position > 0.5, by_position, pooled)
        else:
            squares = by_position() if self.channels else pooled()
        if self.plain:
            squares = feature_covariance.with_plain(squares, fine, self.level, self.plain)
        return squares.reshape(-1, *self.layout.grid)


def to_image(squares: Float[Array, "b i j"], size: tuple[int, int]) -> Float[Array, "b h w"]:
    """Squares on the grid of features, interpolated to the image."""
    return jax.image.resize(squares, (squares.shape[0], *size), "linear")


@dataclasses.dataclass(frozen=True)
class FeaturePCAOptions(ModelOptions):
    """Options of ``feature_pca``."""

    backbone: str = option("efficientnet_lite0", "the pretrained network, which stays as it is")
    stages: int = option(
        0,
        "of the network's maps the first, which are the finest, for defects of few pixels; 0: all",
        at_least=0,
    )
    components: int = option(
        200,
        "axes of the reconstruction; fewer where the images span fewer; 0: the mean",
        at_least=0,
    )
    ridge: float = option(0.03, "shrinkage of the axes, in units of the mean variance", above=0)
    covariance: str = option(
        "auto",
        "of residuals; auto: position where the good images support it, else pooled",
        choices=("auto", "pooled", "position", "none", "shared"),
    )
    floor: float = option(
        1e-3, "added to the variances of residuals, in units of their mean", above=0
    )
    position_channels: int = option(
        100, "random channels of the covariances of positions", at_least=1
    )
    position_weight: float = option(
        0.5, "of a position's own covariance; the pooled one has the rest", at_least=0, at_most=1
    )
    plain: float = option(
        0.0,
        "share of the residual that is not whitened in the map, a geometric mean of both",
        at_least=0,
        below=1,
    )
    share: float = option(0.97, "shared: of the variance that the subspace holds", above=0, below=1)
    memory_limit_mb: int = option(
        1024,
        "features held by the fit; of more images a random part is the basis of reconstruction",
        at_least=1,
    )
