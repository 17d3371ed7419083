"""Passes over good images as features: what fits and calibrations of ``feature_fit`` read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from jaxad.data.batch import Batch
from jaxad.models.base import Variables, apply, to_unit_float
from jaxad.models.layers.feature_fit import Features, Layout
from jaxad.ops.arrays import AnyArray, pad_axis
from jaxad.run.compilation import detection_options

IMAGES_AT_ONCE = 16
"""That pass through the network side by side while it is fitted to: their maps take memory."""


def in_colour(images: Float[Array, "b h w c"]) -> Float[Array, "b h w 3"]:
    """Gray images three times over."""
    return jnp.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def to_vectors(layout: Layout, maps: tuple[Float[Array, "b _ _ _"], ...]) -> Float[Array, "b v"]:
    """The maps of a network as vectors, the first of them, those that are too fine averaged."""
    used = maps[: len(layout.stages)]
    kept = [_average(x, stage[:2]) for x, stage in zip(used, layout.stages, strict=True)]
    return layout.to_vectors(tuple(kept))


def _average(maps: Float[Array, "b h w d"], size: tuple[int, int]) -> Float[Array, "b i j d"]:
    """Means over blocks, for maps finer than the one that is kept."""
    b, h, w, d = maps.shape
    blocks = maps.reshape(b, size[0], h // size[0], size[1], w // size[1], d)
    return jnp.mean(blocks, axis=(2, 4))


def features_of(
    backbone: nn.Module, layout: Layout, picture: tuple[int, int, int]
) -> Callable[[Variables, Shaped[AnyArray, "b h w c"]], Features]:
    """The function of a network's variables and images that gives what a fit takes of these.

    Args:
      backbone: the network.
      layout: of the maps.
      picture: ``(rows, columns, channels)`` of the small pictures.
    """

    def features(network: Variables, images: Shaped[AnyArray, "b h w c"]) -> Features:
        images = to_unit_float(images)
        return Features(
            to_vectors(layout, apply(backbone, network, in_colour(images))),
            jax.image.resize(images, (len(images), *picture), "linear").reshape(len(images), -1),
        )

    return features


class Passes:
    """Passes over good images, as features; a part of a batch at a time."""

    def __init__(
        self,
        backbone: nn.Module,
        network: Variables,
        layout: Layout,
        picture: tuple[int, int, int],
        batches: Iterable[Batch],
    ):
        """What is passed over.

        Args:
          backbone: the network.
          network: its variables.
          layout: of the maps.
          picture: ``(rows, columns, channels)`` of the small pictures.
          batches: of the images; may be iterated several times.
        """
        self._batches = batches
        features = features_of(backbone, layout, picture)
        self._features = jax.jit(
            lambda images: features(network, images), compiler_options=detection_options()
        )

    def __iter__(self) -> Iterator[Features]:
        for batch in self._batches:
            images = np.asarray(batch.image)[np.asarray(batch.valid)]
            for begin in range(0, len(images), IMAGES_AT_ONCE):
                some = images[begin : begin + IMAGES_AT_ONCE]
                # Of one shape, for which the network is compiled once.
                filled = pad_axis(some, 0, (0, IMAGES_AT_ONCE - len(some)))
                found = self._features(filled)
                yield Features(*(np.asarray(values)[: len(some)] for values in found))
