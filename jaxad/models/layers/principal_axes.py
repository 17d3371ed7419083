"""Maximum likelihood of the probabilistic PCA as one pure function of few images.

What :mod:`jaxad.models.pca` fits in passes over any number of images, with eigenvectors in float64
on the host, is here a function of images that are all held, in float32 throughout: it can be
compiled, and mapped over many sets of images. So that small variances do not drown in the rounding
of the largest, those of whole images are not the eigenvalues but the variances of the codes on axes
that were made orthonormal: their errors are of second order in those of the axes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jaxad.ops.arrays import AnyArray

LARGEST_MATRIX = 2048
"""Side of a matrix whose eigenvectors are taken, at most."""

SMALLEST_VARIANCE = 1e-8
"""Keeps the likelihood finite where the axes explain everything (constant images, fewer images
than components); far below the 1/255^2/12 of rounding to 8 bits."""

_JITTER = 1e-6
"""On the diagonal of products of unit vectors: directions that the images do not span are 0."""

_TINY = 1e-20


def fit_vectors(vectors: Float[Array, "n d"], components: int) -> dict[str, Array]:
    """The parameters of :class:`jaxad.models.pca.ProbabilisticPCA` for images as vectors.

    Args:
      vectors: one per image, at least 2.
      components: axes; those beyond n - 1 are 0, with the variance of the noise.

    Raises:
      ValueError: there are too few vectors, or too many.
    """
    n, d = vectors.shape
    check_enough(n)
    if min(n, d) > LARGEST_MATRIX:
        raise ValueError(
            f"models of positions are fitted to at most {LARGEST_MATRIX} photographs, and there "
            f"are {n}; set data.limit={LARGEST_MATRIX}"
        )
    mean = jnp.mean(vectors, axis=0)
    centred = vectors - mean[None]
    # A centred set of n vectors spans at most n - 1 directions.
    k = min(components, n - 1)
    if n <= d:
        axes = _orthonormal(_leading(centred @ centred.T, k).T @ centred)
    else:
        axes = _leading(centred.T @ centred, k).T
    variances = jnp.sum(jnp.square(centred @ axes.T), axis=0) / n
    total = jnp.sum(jnp.square(centred)) / n
    noise = (total - jnp.sum(variances)) / (d - k)
    return parameters_of(mean, axes, variances, noise, components)


def fit_patches(
    images: Shaped[AnyArray, "n h w c"],
    patches_of: Callable[[Shaped[Array, "1 h w c"]], Float[Array, "m d"]],
    components: int,
) -> dict[str, Array]:
    """The same for patches, of which those of one image are made at a time.

    Args:
      images: at least 2.
      patches_of: an image to its patches as vectors.
      components: axes, fewer than values of a patch.

    Raises:
      ValueError: there are fewer than two images.
    """
    check_enough(len(images))
    means = jax.lax.map(lambda image: jnp.mean(patches_of(image[None]), axis=0), images)
    mean = jnp.mean(means, axis=0)

    def add(scatter: Array, image: Any) -> tuple[Array, None]:
        centred = patches_of(image[None]) - mean[None]
        return scatter + centred.T @ centred / len(centred), None

    scatter, _ = jax.lax.scan(add, jnp.zeros((len(mean), len(mean))), images)
    covariance = scatter / len(images)
    axes = _leading(covariance, components).T
    variances = jnp.sum((axes @ covariance) * axes, axis=1)
    noise = (jnp.trace(covariance) - jnp.sum(variances)) / (len(mean) - components)
    return parameters_of(mean, axes, variances, noise, components)


def check_enough(images: int) -> None:
    """Refuses to fit to one image.

    Raises:
      ValueError: there are fewer than two.
    """
    if images < 2:
        raise ValueError(f"pca needs at least 2 training images, it was given {images}")


def _leading(matrix: Float[Array, "i i"], k: int) -> Float[Array, "i k"]:
    """Eigenvectors of the largest eigenvalues, the largest first."""
    return jnp.linalg.eigh(matrix)[1][:, ::-1][:, :k]


def _orthonormal(rows: Float[Array, "k d"]) -> Float[Array, "k d"]:
    """Rows that are nearly orthogonal made orthonormal, in their order.

    By the Cholesky factor of their products, twice (Y. Yamamoto et al., "Roundoff error analysis of
    the CholeskyQR2 algorithm", ETNA 44, 2015): matrix products alone, where a QR decomposition of
    each position would take most of the time.
    """
    for _ in range(2):
        rows = rows / jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(rows), axis=1), _TINY))[:, None]
        one = jnp.eye(len(rows))
        lower = jnp.linalg.cholesky(rows @ rows.T + _JITTER * one)
        # The inverse of the small factor, since a CPU solves for long rows slowly.
        rows = jax.scipy.linalg.solve_triangular(lower, one, lower=True) @ rows
    return rows


def parameters_of(
    mean: Float[Array, " d"],
    axes: Float[Array, "k d"],
    variances: Float[Array, " k"],
    noise: float | Float[Array, ""],
    components: int,
) -> dict[str, Array]:
    """The parameters of :class:`jaxad.models.pca.ProbabilisticPCA` by the leading axes.

    Args:
      mean: of the vectors.
      axes: k of them.
      variances: along the axes.
      noise: the mean variance in all other directions.
      components: axes of the model; those beyond k are 0 and carry the noise's variance, so that
        the density stays right.
    """
    pad = components - len(axes)
    log_noise = jnp.log(jnp.maximum(jnp.float32(noise), SMALLEST_VARIANCE))
    logs = jnp.log(jnp.maximum(variances, SMALLEST_VARIANCE))
    return {
        "mean": mean,
        "axes": jnp.pad(axes, ((0, pad), (0, 0))),
        "log_variances": jnp.concatenate([logs, jnp.broadcast_to(log_noise, (pad,))]),
        "log_noise": log_noise,
    }
