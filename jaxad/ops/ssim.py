"""Structural similarity per pixel and channel: a training loss and an anomaly map.

Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity",
equation 13 with alpha = beta = gamma = 1 and C3 = C2 / 2::

    SSIM = (2 ma mb + C1) (2 cov + C2) / ((ma^2 + mb^2 + C1) (va + vb + C2))

with ``C1 = (k1 L)^2``, ``C2 = (k2 L)^2`` and ``L`` the data range. Publications differ in the
window, the border and the normalisation of the moments, and their maps are not interchangeable:

* uniform window, symmetric border, n / (n - 1): ``skimage.metrics.structural_similarity`` as
  called by the code of the VAE, VAE-GRF and ViT-VAE papers (windows of 11 or 15);
* gaussian window, valid border, n: Wang's original, ``tf.image.ssim`` and ``dm_pix.ssim``;
* gaussian window, symmetric border, n: scikit-image's ``gaussian_weights=True`` with
  ``use_sample_covariance=False``.

The moments are taken of the difference ``d = a - b``, for ``(2 ma mb + C1) / (ma^2 + mb^2 + C1)``
is ``1 - md^2 / (...)`` and ``(2 cov + C2) / (va + vb + C2)`` is ``1 - vd / (...)``. In float32 the
textbook form loses three digits to cancellation where an image is flat; this one is exactly
1, with zero gradient, where the images are equal, and has less than half the error elsewhere.
"""

from __future__ import annotations

import functools
from typing import Literal

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxad.ops.arrays import AnyArray, in_common_dtype, pad_axis

BACKENDS = ("auto", "jaxad", "dm_pix")
"""Whose code computes :func:`mean_ssim`."""


def mean_ssim(
    a: Float[AnyArray, "b h w c"],
    b: Float[AnyArray, "b h w c"],
    *,
    window_size: int = 11,
    sigma: float = 1.5,
    backend: str = "auto",
) -> Float[Array, " b"]:
    """Returns the SSIM of every pair of images in [0, 1]: Wang's gaussian, valid-window form.

    Args:
      a: images in [0, 1].
      b: the images to compare with, of the same shape.
      window_size: side of the square window in pixels, odd and at least 3.
      sigma: standard deviation of the gaussian in pixels.
      backend: ``"jaxad"`` is the mean of :func:`ssim_map`, ``"dm_pix"`` is ``dm_pix.ssim``. They
        are equal but for rounding: dm_pix subtracts moments, which loses digits where an image is
        flat, and gives equal images 1 - 1e-7. ``"auto"`` is jaxad's on a CPU, where it is many
        times as fast, and dm_pix's on other devices, where neither was timed.

    Raises:
      ValueError: as :func:`ssim_map`, or an unknown backend.
    """
    if backend not in BACKENDS:
        raise ValueError(f"The backend of SSIM is one of {', '.join(BACKENDS)}, not {backend!r}.")
    _check(a, b, "gaussian", window_size, sigma, 1.0, "valid")
    if backend == "auto":
        backend = "jaxad" if jax.default_backend() == "cpu" else "dm_pix"
    if backend == "dm_pix":
        a, b = in_common_dtype(a, b)
        return dm_pix.ssim(a, b, filter_size=window_size, filter_sigma=sigma)
    similarity = ssim_map(
        a, b, window="gaussian", window_size=window_size, sigma=sigma,
        sample_covariance=False, border="valid",
    )  # fmt: skip
    return jnp.mean(similarity, axis=(1, 2, 3))


def ssim_map(
    a: Float[AnyArray, "*b h w c"],
    b: Float[AnyArray, "*b h w c"],
    *,
    window: Literal["uniform", "gaussian"] = "uniform",
    window_size: int = 11,
    sigma: float = 1.5,
    data_range: float = 1.0,
    k1: float = 0.01,
    k2: float = 0.03,
    sample_covariance: bool = True,
    border: Literal["symmetric", "valid"] = "symmetric",
) -> Float[Array, "*b oh ow c"]:
    """Returns the structural similarity of two images around every pixel, channel by channel.

    Args:
      a: images of ``data_range`` width, e.g. in [0, 1] for the default.
      b: the images to compare with, of the same shape; the map is symmetric in a and b.
      window: equal weights, or weights of a gaussian with standard deviation ``sigma``.
      window_size: side of the square window in pixels, odd and at least 3.
      sigma: standard deviation of the gaussian window in pixels; the uniform one ignores it.
      data_range: difference between the largest and the smallest value a pixel may take.
      k1: stabiliser of the luminance term.
      k2: stabiliser of the contrast and structure term.
      sample_covariance: scale (co)variances by n / (n - 1), n = ``window_size**2``.
      border: ``"symmetric"`` mirrors the images about their edges (the edge pixel is repeated:
        scipy's ``reflect``, numpy's ``symmetric``), ``"valid"`` keeps whole windows only.

    Returns:
      Values from -1, up to rounding, to 1 where the windows are equal; (h, w) as the images with
      the symmetric border, (h - window_size + 1, w - window_size + 1) with the valid one.
      At least float32: moments in bfloat16 would be noise.

    Raises:
      ValueError: if the shapes differ, the images are integers or smaller than the window, or an
        option has no meaning.
    """
    _check(a, b, window, window_size, sigma, data_range, border)
    taps = _taps(window, window_size, sigma)
    radius = window_size // 2

    def local_mean(images: Array) -> Array:
        for axis in (images.ndim - 3, images.ndim - 2):
            mirrored = pad_axis(images, axis, (radius, radius), mode="symmetric")
            images = _weighted_sum(mirrored, axis, taps)
        return images

    # Variances do not depend on the origin: half the range keeps the squares small.
    origin = 0.5 * data_range
    a, b = (images - origin for images in in_common_dtype(a, b))

    mean_a, mean_b = local_mean(a), local_mean(b)
    squared_means = jnp.square(mean_a) + jnp.square(mean_b)
    squared_mean_difference = jnp.square(mean_a - mean_b)
    n = window_size**2
    scale = n / (n - 1) if sample_covariance else 1.0
    # Rounding makes them negative, and by more than C2 where images lie far outside their range.
    variances, variance_of_difference = (
        scale * jnp.maximum(mean_square - squared_mean, 0.0)
        for mean_square, squared_mean in (
            (local_mean(jnp.square(a) + jnp.square(b)), squared_means),
            (local_mean(jnp.square(a - b)), squared_mean_difference),
        )
    )

    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    squared_brightness = jnp.square(mean_a + origin) + jnp.square(mean_b + origin)
    luminance = 1.0 - squared_mean_difference / (squared_brightness + c1)
    contrast_structure = 1.0 - variance_of_difference / (variances + c2)
    similarity = luminance * contrast_structure
    if border == "valid":
        # Cropped, rather than never padded: on a CPU it is the border that keeps XLA from fusing
        # the sums of both axes into window_size**2 terms per pixel, which takes 10 times as long.
        height, width = a.shape[-3:-1]
        similarity = similarity[..., radius : height - radius, radius : width - radius, :]
    return similarity


def _check(a, b, window, window_size, sigma, data_range, border) -> None:
    """Raises a ValueError that says which argument of ssim_map cannot be used, and why."""
    if a.shape != b.shape:
        raise ValueError(f"SSIM compares images of one shape, not {a.shape} with {b.shape}.")
    if a.ndim < 3:
        raise ValueError(f"SSIM takes images of shape (..., h, w, c), not {a.shape}.")
    for images in (a, b):
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(
                f"SSIM takes floating-point images, not {images.dtype}: convert them, and set "
                "data_range to the width of their range."
            )
    if window not in ("uniform", "gaussian"):
        raise ValueError(f"The SSIM window is 'uniform' or 'gaussian', not {window!r}.")
    if border not in ("symmetric", "valid"):
        raise ValueError(f"The SSIM border is 'symmetric' or 'valid', not {border!r}.")
    if window_size < 3 or window_size % 2 == 0:
        raise ValueError(f"The SSIM window size is odd and at least 3, not {window_size}.")
    if window == "gaussian" and not sigma > 0:
        raise ValueError(f"The gaussian window of SSIM needs a sigma above 0, not {sigma}.")
    if not data_range > 0:
        raise ValueError(f"The data range of SSIM is above 0, not {data_range}.")
    height, width = a.shape[-3:-1]
    if min(height, width) < window_size:
        raise ValueError(
            f"Images of {height}x{width} pixels are smaller than the SSIM window of "
            f"{window_size}x{window_size}: take a smaller window or larger images."
        )


def _taps(window: str, size: int, sigma: float) -> tuple[float, ...]:
    """Returns the one-dimensional weights of the window, which sum to 1."""
    if window == "uniform":
        return (1.0 / size,) * size
    weights = np.exp(-0.5 * np.square((np.arange(size) - size // 2) / sigma))
    return tuple((weights / weights.sum()).tolist())


# Both windows are separable: two sums of shifted images, one per axis. Measured on 2 CPU cores,
# 8x256x256x3 images, uniform window of 11, the whole map / the map with its gradient:
#   shifted sums, as below       7 ms /  47 ms     max. error 5e-5 against float64
#   reduce_window, separable    11 ms /  50 ms
#   the same sums, fused        59 ms / 365 ms     without the barriers and the rule below
#   banded matrix products      50 ms / 120 ms
#   cumulative sums             77 ms / 160 ms     max. error 6e-4: they lose digits
#   reduce_window, square       97 ms / 209 ms
#   dm_pix.ssim (gaussian)     190 ms / 338 ms
#   depthwise convolution      322 ms / 579 ms
@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _weighted_sum(images: Array, axis: int, taps: tuple[float, ...]) -> Array:
    """Correlates one axis with the taps, whole windows only."""
    length = images.shape[axis] - len(taps) + 1
    # Without the barriers XLA would evaluate the other axis and the border once per tap.
    images = lax.optimization_barrier(images)
    total = taps[0] * lax.slice_in_dim(images, 0, length, axis=axis)
    for shift, tap in enumerate(taps[1:], 1):
        total += tap * lax.slice_in_dim(images, shift, shift + length, axis=axis)
    return lax.optimization_barrier(total)


@_weighted_sum.defjvp
def _weighted_sum_jvp(axis, taps, primals, tangents):
    """The same linear map, written so that its transpose is a sum of slices as well.

    The transpose of slices is a sum of padded arrays, which is slow; the transpose of the padded
    arrays below is a sum of slices.
    """
    (images,), (tangent,) = primals, tangents
    reach = len(taps) - 1
    tangent = lax.optimization_barrier(tangent)
    zero = jnp.zeros((), tangent.dtype)
    total = None
    for shift, tap in enumerate(reversed(taps)):
        padding = [(0, 0, 0)] * tangent.ndim
        padding[axis] = (shift, reach - shift, 0)
        shifted = tap * lax.pad(tangent, zero, padding)
        total = shifted if total is None else total + shifted
    total = lax.optimization_barrier(total)
    return _weighted_sum(images, axis, taps), lax.slice_in_dim(
        total, reach, images.shape[axis], axis=axis
    )
