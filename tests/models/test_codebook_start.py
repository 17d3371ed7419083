"""A codebook's start: the centres of clusters, without padding, repeated where latents are few."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.data.batch import Batch
from jaxad.models.layers.codebook_start import codes_by_k_means
from jaxad.ops.vector_quantisation import nearest_code


def batch_of(images):
    return Batch(images, np.arange(len(images), dtype=np.int32), np.ones(len(images), bool))


def clusters(rng, count, k=6, d=4):
    """Well separated centres and latents ``(count, 8, 8, d)`` scattered tightly around them."""
    centres = 10 * rng.permutation(np.eye(k, d) + np.arange(k)[:, None]).astype(np.float32)
    kinds = rng.integers(0, k, (count, 8, 8))
    scatter = 0.01 * rng.normal(size=(count, 8, 8, d))
    return centres, np.float32(centres[kinds] + scatter)


def test_k_means_finds_the_centres_of_clusters():
    centres, latents = clusters(np.random.default_rng(0), 40)
    codes = codes_by_k_means(lambda x: x, [batch_of(latents)], 6)
    distances = np.linalg.norm(np.asarray(codes)[:, None] - centres[None], axis=-1)
    assert sorted(distances.argmin(axis=1)) == list(range(6)), "one code per cluster"
    assert distances.min(axis=1).max() < 0.01
    assert len(np.unique(nearest_code(jnp.asarray(latents), codes))) == 6


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_k_means_ignores_padding_and_repeats_when_latents_are_few():
    latents = np.zeros((3, 8, 8, 2), np.float32)
    latents[1:] = 1e6
    padded = Batch(latents, np.arange(3, dtype=np.int32), np.array([True, False, False]))
    codes = codes_by_k_means(lambda x: x, [padded], 12)
    assert codes.shape == (12, 2)
    np.testing.assert_array_equal(codes, 0.0)
