"""Linear reconstruction of training images by axes that were fitted without them.

The principal axes of images give back what they were fitted to better than what they were not: a
network that is trained on what they leave of training images would find every new image defective.
So training images are parted into folds, and those of a fold are reconstructed by the axes of all
others; images that are not trained on, by the axes of all.
"""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxad.data.batch import Batch
from jaxad.models import pca
from jaxad.models.base import Variables, to_unit_float
from jaxad.models.layers.whitened_patches import averaged

FOLDS = 5

FEWEST = 3
"""Images: with two, axes that leave one out would be of a single image."""

Axes = dict[str, Array]
"""``mean (f + 1, d)`` and ``axes (f + 1, k, d)``: without each fold, and last of all images."""


def blank(dimension: int, components: int) -> Axes:
    """Axes of the right shapes."""
    mean = jnp.full((FOLDS + 1, dimension), 0.5)
    return {"mean": mean, "axes": jnp.zeros((FOLDS + 1, components, dimension))}


def fit(batches: Iterable[Batch], shape: tuple[int, int, int], components: int, cell: int) -> Axes:
    """Fits the axes.

    Args:
      batches: of good images; iterated once. They are held, averaged and rounded to 8 bits.
      shape: ``(h, w, c)`` of the images.
      components: axes.
      cell: side of the blocks of pixels over which images are averaged first.

    Raises:
      ValueError: too few images.
    """
    h, w, c = shape
    model = pca.build((h // cell, w // cell, c), pca.PCAOptions(components=components))
    assert model.fit is not None and model.fit_to_others is not None
    small = jax.jit(lambda images: jnp.rint(255 * averaged(to_unit_float(images), cell)))
    held = [batch._replace(image=np.uint8(small(batch.image))) for batch in batches]

    count = sum(int(np.sum(batch.valid)) for batch in held)
    if count < FEWEST:
        raise ValueError(f"restore needs at least {FEWEST} training images, it was given {count}")

    def of(fold: int) -> list[Batch]:
        return [one._replace(valid=one.valid & (one.index % FOLDS == fold)) for one in held]

    models = [*model.fit_to_others([of(fold) for fold in range(FOLDS)]), model.fit(held)]
    params = [one["params"] for one in models]
    return {name: jnp.stack([one[name] for one in params]) for name in ("mean", "axes")}


def reconstruct(
    axes: Variables, small: Float[Array, "b i j c"], folds: Int[Array, " b"]
) -> Float[Array, "b i j c"]:
    """The reconstruction of images that were averaged over cells.

    Args:
      axes: as :func:`fit` gives them.
      small: the images.
      folds: which axes of each image: those without its fold, or ``FOLDS``, those of all.
    """
    f, k, d = axes["axes"].shape
    chosen = jax.nn.one_hot(folds, f)
    rows = small.reshape(-1, d)
    # The codes by the axes of all folds, those of the others set to 0: one product of matrices in
    # place of a copy of its axes for every image.
    offsets = jnp.einsum("fkd,fd->fk", axes["axes"], axes["mean"])
    codes = jnp.einsum("bd,fkd->bfk", rows, axes["axes"]) - offsets[None]
    codes = codes * chosen[:, :, None]
    back = codes.reshape(-1, f * k) @ axes["axes"].reshape(f * k, d) + chosen @ axes["mean"]
    return back.reshape(small.shape)
