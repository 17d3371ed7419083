"""Probabilistic PCA of the good images: the linear autoencoder in closed form.

Source: M. E. Tipping, C. M. Bishop, "Probabilistic Principal Component Analysis", JRSS B 61(3),
1999. An image x, flattened to d values, is modelled as ``x ~ N(mu, W W' + s2 I)``. The likelihood
is largest when mu is the mean of the images, ``W = V (L - s2 I)^(1/2)`` with their leading
principal axes V and variances L (their eq. 7), and s2 is the mean of the variances left out
(eq. 8). The reconstruction is the orthogonal projection ``mu + V V' (x - mu)``, the optimum of a
linear autoencoder under the squared error.

There are two forms: the whole image as one vector, for parts that always lie in the same way; or
patches at any position (``patch > 0``), for textures, whose overlapping reconstructions and
log-likelihoods are averaged.

Maps: ``l1`` (channel mean of the absolute error), ``ssim`` (channel mean of 1 - SSIM),
``l1*ssim``; with patches also ``nll``, the negative log-likelihood per value in nats. Score:
``nll`` of the whole image in nats (with patches their mean). With as many components as training
images nothing is left for the noise, and ``nll`` of any other image becomes huge; the maps are
not affected. No paper defines an image score for a linear model, so ``evaluate.primary_score`` is
this library's choice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from jaxad.data.batch import Batch
from jaxad.models.base import (
    Detection,
    LossOutput,
    Model,
    ModelOptions,
    Variables,
    apply,
    label_all_trainable,
    ssim_window_option,
    to_unit_float,
)
from jaxad.models.layers import pca_folds, pca_passes
from jaxad.models.layers.axes_shown import MATMUL_PRECISION, describe, sample
from jaxad.models.layers.principal_axes import fit_patches, fit_vectors
from jaxad.ops.arrays import AnyArray
from jaxad.ops.ssim import ssim_map
from jaxad.ops.tiles import average_tiles, bands, extract_tiles
from jaxad.run.options import option

BLOCK_VALUES = 2**26
"""Values of overlapping patches that a fit holds at once (256 MiB)."""


class ProbabilisticPCA(nn.Module):
    """``N(mean, W W' + s2 I)`` over vectors of ``d`` values, by its principal axes.

    Attributes:
      dimension: d.
      components: k, the number of principal axes.
    """

    dimension: int
    components: int

    def setup(self):
        """Declares the parameters."""
        k, d = self.components, self.dimension
        self.mean = self.param("mean", nn.initializers.constant(0.5), (d,))
        # Rows are orthonormal: axes[i] is the i-th principal direction.
        self.axes = self.param("axes", nn.initializers.orthogonal(), (k, d))
        self.log_variances = self.param("log_variances", nn.initializers.zeros, (k,))
        self.log_noise = self.param("log_noise", nn.initializers.zeros, ())

    def __call__(
        self, x: Float[AnyArray, "n d"]
    ) -> tuple[Float[AnyArray, "n d"], Float[AnyArray, " n"]]:
        """Projects vectors and gives their log-likelihood.

        Returns:
          The reconstruction ``(n, d)`` and ``log p(x)`` ``(n,)`` in nats.
        """
        k, d = self.components, self.dimension
        centred = x - self.mean[None]
        with jax.default_matmul_precision(MATMUL_PRECISION):
            codes = centred @ self.axes.T
            projected = codes @ self.axes
        # || x - mu ||^2 minus the part inside the subspace, as a sum of squares of the residual:
        # the difference of the two norms would cancel.
        outside = jnp.sum(jnp.square(centred - projected), axis=-1)
        mahalanobis = jnp.sum(jnp.square(codes) * jnp.exp(-self.log_variances)[None], axis=-1)
        log_likelihood = -0.5 * (
            d * jnp.log(2 * jnp.pi)
            + jnp.sum(self.log_variances)
            + (d - k) * self.log_noise
            + mahalanobis
            + outside * jnp.exp(-self.log_noise)
        )
        return self.mean[None] + projected, log_likelihood


@dataclasses.dataclass(frozen=True)
class PCAOptions(ModelOptions):
    """Options of ``pca``."""

    components: int = option(
        30, "principal axes kept; fewer where the images span fewer", at_least=1
    )
    patch: int = option(0, "side of square patches; 0: the whole image is one vector", at_least=0)
    stride: int = option(4, "pixels between patches", at_least=1)
    ssim_window: int = ssim_window_option(detection_only=True)


def build(
    image_shape: tuple[int, int, int], options: PCAOptions, *, axis_name: str | None = None
) -> Model:
    """Builds ``pca``.

    Args:
      image_shape: ``(h, w, c)``.
      options: of the model.
      axis_name: unused, nothing is reduced over devices inside the model.

    Raises:
      ValueError: a patch larger than the image, or a stride larger than the patch.
    """
    del axis_name
    h, w, c = image_shape
    patch, stride = options.patch, options.stride
    if patch and (patch > min(h, w) or stride > patch):
        raise ValueError(
            f"model.patch {patch} with model.stride {stride} does not fit images of {h} x {w}; "
            "the patch may be at most as large as the image and the stride at most the patch"
        )
    dimension = (patch * patch if patch else h * w) * c
    module = ProbabilisticPCA(dimension, min(options.components, dimension - 1))

    def to_vectors(images: Float[AnyArray, "b h w c"]) -> Float[Array, "n d"]:
        images = jnp.asarray(images)
        if patch:
            images = extract_tiles(images, tile=patch, stride=stride)
        return images.reshape(-1, dimension)

    def pictures_of(vectors: Float[Array, "n d"]) -> Float[Array, "n i j c"]:
        return vectors.reshape(-1, *((patch, patch, c) if patch else image_shape))

    def forward(variables: Variables, images: Float[AnyArray, "b h w c"]):
        b = images.shape[0]
        vectors, log_likelihood = apply(module, variables, to_vectors(images))
        if not patch:
            return vectors.reshape(images.shape), log_likelihood, None
        tiles = vectors.reshape(b, -1, patch, patch, c)
        log_likelihood = log_likelihood.reshape(b, -1)
        nll = jnp.broadcast_to(
            -log_likelihood[:, :, None, None, None] / dimension, (*tiles.shape[:4], 1)
        )
        nll_map = average_tiles(nll, (h, w), stride=stride)[..., 0]
        return average_tiles(tiles, (h, w), stride=stride), log_likelihood.mean(axis=1), nll_map

    def init(key):
        return module.init(key, jnp.zeros((1, dimension)))

    def loss(variables, batch: Batch, keys, train: bool) -> LossOutput:
        del keys, train
        images = to_unit_float(batch.image)
        reconstruction, log_likelihood, _ = forward(variables, images)
        squared = jnp.mean(jnp.square(images - reconstruction), axis=(1, 2, 3))
        nll = -log_likelihood / dimension
        return LossOutput(nll, {"nll": nll, "l2": squared}, {}, {}, {})

    def detect(variables, images) -> Detection:
        images = to_unit_float(images)
        reconstruction, log_likelihood, nll_map = forward(variables, images)
        reconstruction = jnp.clip(reconstruction, 0.0, 1.0)
        l1 = jnp.mean(jnp.abs(images - reconstruction), axis=-1)
        ssim = 1.0 - jnp.mean(
            ssim_map(images, reconstruction, window_size=options.ssim_window), axis=-1
        )
        maps = {"l1": l1, "ssim": ssim, "l1*ssim": l1 * ssim}
        if nll_map is not None:
            maps["nll"] = nll_map
        return Detection(maps, {"nll": -log_likelihood}, reconstruction)

    return Model(
        module=module,
        image_shape=image_shape,
        init=init,
        loss=loss,
        detect=detect,
        param_labels=label_all_trainable,
        **_fits(module.components, dimension, to_vectors, patch, stride),
        diagnostics=lambda variables, images: describe(variables, pictures_of),
        sample=lambda variables, key, n: sample(variables, key, n, pictures_of),
    )


def _fits(
    components: int,
    dimension: int,
    to_vectors: Callable[[Float[AnyArray, "b h w c"]], Float[Array, "n d"]],
    patch: int,
    stride: int,
) -> dict[str, Any]:
    """``fit``, ``solve`` and ``fit_to_others`` of :class:`~jaxad.models.base.Model`.

    Args:
      components: of the model.
      dimension: d of the vectors.
      to_vectors: images in [0, 1] as vectors, one or many of each.
      patch: side of these in pixels; 0: an image is one vector.
      stride: pixels between them.
    """
    unit_vectors = jax.jit(lambda images: to_vectors(to_unit_float(images)))

    def blocks(images: Shaped[np.ndarray, "b h w c"]):
        return bands(images, patch, stride, values=BLOCK_VALUES) if patch else [images]

    def passes(parts: Sequence[Iterable[Batch]]) -> pca_passes.VectorPasses:
        return pca_passes.VectorPasses(parts, unit_vectors, dimension, blocks)

    def fit(batches: Iterable[Batch]) -> Variables:
        with jax.default_matmul_precision(MATMUL_PRECISION):
            params = pca_passes.fit(passes([batches]), components, streaming=patch > 0)
        return {"params": params}

    def solve(images: Shaped[AnyArray, "n h w c"]) -> Variables:
        unit = lambda some: to_vectors(to_unit_float(some))
        with jax.default_matmul_precision(MATMUL_PRECISION):
            if patch:
                return {"params": fit_patches(images, unit, components)}
            return {"params": fit_vectors(unit(images), components)}

    def fit_to_others(parts: Sequence[Iterable[Batch]]) -> list[Variables]:
        with jax.default_matmul_precision(MATMUL_PRECISION):
            found = pca_folds.fit_to_others(passes(parts), components, streaming=patch > 0)
            return [{"params": params} for params in found]

    return {"fit": fit, "solve": solve, "fit_to_others": fit_to_others}
