"""Features of images without pretrained weights: whitened patches, rectified, in two layers.

The filters of a layer are the leading principal axes of the patches of good images, each divided by
the root of its variance, so that its responses have variance 1 (PCA whitening; A. Coates, A. Ng,
H. Lee, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning", AISTATS 2011; two
layers of such filters: T.-H. Chan et al., "PCANet", IEEE TIP 24(12), 2015). A response ``y`` goes
on as ``sqrt(max(y, 0))`` and ``sqrt(max(-y, 0))``: averaged over a cell, the two tell what the sign
of ``y`` is and how strong the texture is, which the mean of ``y`` alone would not; the root keeps
single edges from outweighing everything else.

Both layers are applied to the image and to its halves, a pyramid. Nothing here comes from a
publication as a whole, and the sizes are this library's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from jaxad.data.batch import Batch
from jaxad.models.base import Variables, apply, to_unit_float
from jaxad.models.layers.feature_fit import MATMUL_PRECISION
from jaxad.models.layers.feature_passes import IMAGES_AT_ONCE, in_colour
from jaxad.ops.arrays import pad_axis

FLOOR = 1e-2
"""Added to the variance of every filter, in units of their mean: faint ones carry noise."""

ROUNDING = 1 / 255**2 / 12
"""Likewise, the variance of rounding to 8 bits: flat images have no other."""

FIRST_SIDE, SECOND_SIDE = 5, 3
"""Of the patches of each layer."""

Maps = Float[Array, "b _ _ _"]


def mirrored(maps: Maps, side: int) -> Maps:
    """Maps with as many mirrored pixels around as give every pixel a patch."""
    around = (side - 1) // 2, side // 2
    return pad_axis(pad_axis(maps, 1, around, mode="symmetric"), 2, around, mode="symmetric")


class Whitening(nn.Module):
    """Patches to whitened responses: one convolution, its borders mirrored.

    Attributes:
      features: filters.
      side: of the patches.
    """

    features: int
    side: int

    @nn.compact
    def __call__(self, maps: Maps) -> Maps:
        """Responses ``(b, h, w, features)``."""
        values = self.side**2 * maps.shape[-1]
        mean = self.param("mean", nn.initializers.zeros, (values,))
        filters = self.param("filters", nn.initializers.lecun_normal(), (values, self.features))
        kernel = filters.reshape(self.side, self.side, -1, self.features)
        padded = mirrored(maps, self.side)
        responses = jax.lax.conv_general_dilated(
            padded, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return responses - (mean @ filters)[None, None, None]


def rectified(responses: Maps) -> Maps:
    """``sqrt(max(y, 0))`` and ``sqrt(max(-y, 0))``, twice as many channels."""
    root = lambda x: jnp.sqrt(jnp.maximum(x, 0.0) + 1e-6) - 1e-3
    return jnp.concatenate([root(responses), root(-responses)], axis=-1)


def averaged(maps: Maps, side: int) -> Maps:
    """Means over cells of ``side`` x ``side``."""
    if side == 1:
        return maps
    b, h, w, d = maps.shape
    return jnp.mean(maps.reshape(b, h // side, side, w // side, side, d), axis=(2, 4))


class WhitenedPatches(nn.Module):
    """A pyramid of two layers of whitened patches.

    Attributes:
      first: filters of the first layer.
      second: filters of the second.
      side: of the patches of the first layer.
      cells: for every level of the pyramid the side of its cells, in its own pixels.
    """

    first: int = 12
    second: int = 24
    side: int = FIRST_SIDE
    cells: tuple[int, ...] = (4, 4, 2)

    def setup(self):
        """Declares the layers, two for every level."""
        levels = range(len(self.cells))
        self.layers1 = [Whitening(self.first, self.side) for _ in levels]
        self.layers2 = [Whitening(self.second, SECOND_SIDE) for _ in levels]

    def __call__(self, images: Float[Array, "b h w 3"]) -> tuple[Maps, ...]:
        """One map per level: the rectified responses of both layers, averaged over its cells."""
        maps = []
        for level, cell in enumerate(self.cells):
            one = rectified(self.layers1[level](averaged(images, 2**level)))
            two = rectified(self.layers2[level](averaged(one, 2)))
            maps.append(jnp.concatenate([averaged(one, cell), averaged(two, cell // 2)], axis=-1))
        return tuple(maps)

    def before_first(self, images: Float[Array, "b h w 3"]) -> list[Maps]:
        """What the first layer of every level sees."""
        return [averaged(images, 2**level) for level in range(len(self.cells))]

    def before_second(self, images: Float[Array, "b h w 3"]) -> list[Maps]:
        """What the second layer of every level sees."""
        return [
            averaged(rectified(layer(maps)), 2)
            for layer, maps in zip(self.layers1, self.before_first(images), strict=True)
        ]


def fit_patches(
    module: WhitenedPatches, variables: Variables, batches: Iterable[Batch]
) -> Variables:
    """Fits the filters to good images, the first layer and then the second.

    Args:
      module: whose filters are wanted.
      variables: of any values.
      batches: of good images; iterated twice.
    """
    params = dict(variables["params"])
    for layer, method, side in (
        ("layers1", "before_first", module.side),
        ("layers2", "before_second", SECOND_SIDE),
    ):
        seen = lambda images, method=method, params=params: apply(
            module, {"params": params}, images, method=method
        )
        moments = _moments(seen, batches, side)
        features = module.first if layer == "layers1" else module.second
        found = {f"{layer}_{i}": _whitening(*one, features) for i, one in enumerate(moments)}
        params = params | found
    return {"params": params}


def _moments(
    seen: Callable[[Array], list[Maps]], batches: Iterable[Batch], side: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean and second moments of the patches of each level, every second one each way."""

    @jax.jit
    def of_images(images):
        found = []
        for maps in seen(in_colour(to_unit_float(images))):
            patches = jax.lax.conv_general_dilated_patches(
                mirrored(maps, side), (side, side), (2, 2), "VALID",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )  # fmt: skip
            # The channels of patches come first there, and last in a kernel.
            flat = patches.reshape(-1, maps.shape[-1], side * side).swapaxes(1, 2)
            flat = flat.reshape(len(flat), -1)
            square = jnp.matmul(flat.T, flat, precision=MATMUL_PRECISION)
            found.append((len(flat), flat.sum(axis=0), square))
        return found

    totals: list[list] = []
    for batch in batches:
        images = np.asarray(batch.image)[np.asarray(batch.valid)]
        for begin in range(0, len(images), IMAGES_AT_ONCE):
            for level, values in enumerate(of_images(images[begin : begin + IMAGES_AT_ONCE])):
                values = [np.asarray(value, np.float64) for value in values]
                if level == len(totals):
                    totals.append(values)
                else:
                    totals[level] = [a + b for a, b in zip(totals[level], values, strict=True)]
    return [(total / count, square / count) for count, total, square in totals]


def _whitening(
    mean: Float[np.ndarray, " v"], square: Float[np.ndarray, "v v"], features: int
) -> dict[str, Array]:
    values, vectors = np.linalg.eigh(square - np.outer(mean, mean))
    values, vectors = np.maximum(values[::-1][:features], 0.0), vectors[:, ::-1][:, :features]
    # The sign of an eigenvector is the solver's choice: the largest entry is made positive.
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    filters = vectors * signs / np.sqrt(values + FLOOR * values.mean() + ROUNDING)
    return {"mean": jnp.asarray(mean, jnp.float32), "filters": jnp.asarray(filters, jnp.float32)}
