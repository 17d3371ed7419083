"""Passes over good images as features: what fits and calibrations of ``feature_fit`` read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from jaxad.data.batch import Batch
from jaxad.models.base import Variables, apply, to_unit_float
from jaxad.models.layers.efficientnet_lite import EfficientNetLite
from jaxad.models.layers.feature_fit import Features, Layout
from jaxad.ops.arrays import AnyArray
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
        # On a CPU this network is fastest with one image at a time for each core.
        alone = isinstance(backbone, EfficientNetLite) and jax.default_backend() == "cpu"
        self._size = 1 if alone else IMAGES_AT_ONCE
        self._threads = min(IMAGES_AT_ONCE, os.cpu_count() or 1) if alone else 1

    def __iter__(self) -> Iterator[Features]:
        with ThreadPoolExecutor(self._threads) as pool:
            for batch in self._batches:
                images = np.asarray(batch.image)[np.asarray(batch.valid)]
                for begin in range(0, len(images), IMAGES_AT_ONCE):
                    some = images[begin : begin + IMAGES_AT_ONCE]
                    parts = [some[i : i + self._size] for i in range(0, len(some), self._size)]
                    found = list(pool.map(self._of_some, parts))
                    yield Features(*(np.concatenate(values) for values in zip(*found, strict=True)))

    def _of_some(self, images: Shaped[np.ndarray, "b h w c"]) -> Features:
        # Of one shape, for which the network is compiled once.
        filled = np.zeros((self._size, *images.shape[1:]), images.dtype)
        filled[: len(images)] = images
        return Features(*(np.asarray(values)[: len(images)] for values in self._features(filled)))
