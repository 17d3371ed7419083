"""The start of a codebook: k-means centres of the latents of training images."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxad.data.batch import Batch

LATENTS_PER_CODE = 20
"""Latents per code from which the codebook's start is clustered."""


def codes_by_k_means(
    encode: Callable[[Any], Float[Array, "b i j d"]], batches: Iterable[Batch], k: int
) -> Float[Array, "k d"]:
    """Centres of the latents of the first images; repeated centres where there are fewer latents.

    Args:
      encode: images to latents.
      batches: of good images; only as many are read as give :data:`LATENTS_PER_CODE` per code.
      k: number of centres.
    """
    # Here, since scikit-learn takes a second to import and only training needs it.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    latents: list[np.ndarray] = []
    rng = np.random.default_rng(0)
    for batch in batches:
        found = np.asarray(encode(batch.image))[np.asarray(batch.valid)]
        found = found.reshape(-1, found.shape[-1])
        # A share of every image, so that neighbouring latents of few images do not fill it up.
        latents.append(rng.permutation(found)[: max(1, len(found) // 8)])
        if sum(map(len, latents)) >= LATENTS_PER_CODE * k:
            break
    sample = np.concatenate(latents)[: LATENTS_PER_CODE * k]
    with warnings.catch_warnings():
        # Fewer distinct latents than codes (flat images) leave codes doubled, which does no harm.
        warnings.simplefilter("ignore", ConvergenceWarning)
        start = KMeans(min(k, len(sample)), n_init=1, max_iter=30, random_state=0).fit(sample)
    return jnp.asarray(np.resize(start.cluster_centers_, (k, sample.shape[1])), jnp.float32)
