"""Generated good images, and ``feature_pca`` fitted to what the tiny network makes of them."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
import tiny_backbone

from jaxad import models
from jaxad.data.batch import Batch
from jaxad.models.base import parameter_key
from jaxad.models.layers.backbones import backbone

SHAPE = (32, 48, 3)
D = 7
"""Channels of the tiny network."""

P = 4 * 6
"""Positions at 8 pixels each."""


def images_of(count, seed=0):
    """A bright square that moves a little and changes its brightness, and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :48]
    pictures = []
    for _ in range(count):
        top, left = 8 + 4 * rng.random(), 16 + 4 * rng.random()
        square = (abs(y - top - 8) < 8) & (abs(x - left - 8) < 8)
        picture = 60 + 100 * rng.random() * square[..., None] * np.array([1.0, 0.7, 0.4])
        pictures.append(picture + rng.normal(0, 6, SHAPE))
    return np.uint8(np.clip(pictures, 0, 255))


def batches_of(images, size=16):
    """The last batch is padded with white images that are not valid."""
    batches = []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        padded = np.concatenate([part, np.full((size - len(part), *SHAPE), 255, np.uint8)])
        batches.append(Batch(padded, np.arange(size, dtype=np.int32), np.arange(size) < len(part)))
    return batches


def build(**options):
    return models.build("feature_pca", SHAPE, backbone=tiny_backbone.NAME, **options)


@functools.cache
def network():
    """Variables of the tiny network."""
    return backbone(tiny_backbone.NAME).module.init(parameter_key(3), jnp.zeros((1, *SHAPE)))


def fitted(images, size=16, **options):
    model = build(**options)
    return model, model.fit(batches_of(images, size), backbone=network())
