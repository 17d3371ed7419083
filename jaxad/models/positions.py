"""A model of its own for every position of a tile: ``data.tile_models=per_position``.

The variables of all positions are stacked along a leading axis. They are fitted by one compiled
program, mapped over positions (:func:`mapped`), and a tile is judged by those of its position,
again by one program for as many tiles as come together. So many positions are taken at a time as a
budget of memory holds. A network behind them, pretrained or learned from the tiles of all
positions, is not stacked: all have the same.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, Shaped, UInt8

from jaxad.data.batch import Batch
from jaxad.data.pipeline import BatchLoader, Images
from jaxad.models.base import Detection, LossOutput, Model, Variables
from jaxad.ops.arrays import AnyArray
from jaxad.run.progress import Progress

BLOCK_BYTES = 2**28
"""Of the positions that are fitted at once."""

_COPIES = 3
"""Of the images as float32, while a position is fitted to them."""

_NETWORK = "backbone"
"""Name of the network in each collection of variables."""


def per_position(model: Model, count: int) -> Model:
    """The models of all positions as one.

    Its image ``k`` is the tile of position ``k``, or of the position that ``detect`` takes as
    ``places[k]``. ``fit`` takes a :class:`~jaxad.data.pipeline.BatchLoader` of the tiles of all
    photographs, photograph after photograph.

    Args:
      model: of one tile; has ``solve``.
      count: of positions.
    """

    def init(key: Key[Array, ""]) -> Variables:
        own, network = _split(model.init(key))
        stacked = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), own)
        return _joined(stacked, network)

    def detect(
        variables: Variables,
        images: Shaped[AnyArray, "b h w c"],
        places: Int[AnyArray, " b"] | None = None,
    ) -> Detection:
        places = jnp.arange(len(images)) if places is None else jnp.asarray(places)
        # Taken out one by one: the models of all these tiles may be larger than everything else.
        held = jax.tree.map(jnp.asarray, variables)
        each = lambda place, image: model.detect(at_position(held, place), image[None])
        return _first(mapped(each)(places, jnp.asarray(images)))

    def loss(variables: Variables, batch: Batch, keys: Key[Array, " b"], train: bool) -> LossOutput:
        held = jax.tree.map(jnp.asarray, variables)
        each = lambda place, row, key: model.loss(
            at_position(held, place), jax.tree.map(lambda x: x[None], row), key[None], train
        )
        return _first(mapped(each)(jnp.arange(len(batch.image)), batch, keys))

    def fit(batches: BatchLoader, *, backbone: Variables | None = None) -> Variables:
        if backbone is None and model.learn_backbone is not None:
            backbone = model.learn_backbone(batches)
        return fit_positions(model, batches.images, count, backbone=backbone)

    return model._replace(
        init=init,
        loss=loss,
        detect=detect,
        fit=fit,
        solve=None,
        learn_backbone=None,
        trimmed=None,
        fit_to_others=None,
        left_out=None,
        diagnostics=None,
        sample=None,
    )


def at_position(variables: Variables, place: int | AnyArray) -> Variables:
    """The variables of one position, or of some."""
    own, network = _split(variables)
    return _joined(jax.tree.map(lambda leaf: leaf[place], own), network)


def _split(variables: Variables) -> tuple[Variables, Variables]:
    """The variables that every position has of its own, and those of the network that all have."""
    own = {
        collection: {name: tree for name, tree in trees.items() if name != _NETWORK}
        for collection, trees in variables.items()
    }
    network = {
        collection: {_NETWORK: trees[_NETWORK]}
        for collection, trees in variables.items()
        if _NETWORK in trees
    }
    return own, network


def _joined(own: Variables, network: Variables) -> Variables:
    """The inverse of :func:`_split`."""
    return {
        collection: {**trees, **network.get(collection, {})} for collection, trees in own.items()
    }


def megabytes(model: Model, count: int) -> float:
    """That the variables of all positions take, in 2**20 bytes."""
    own, network = _bytes(model)
    return (count * own + network) / 2**20


def fit_positions(
    model: Model, images: Images, count: int, *, backbone: Variables | None = None
) -> Variables:
    """Fits every position to its tiles of all photographs.

    Args:
      model: of one tile; has ``solve``.
      images: tiles, photograph after photograph.
      count: of positions, which each photograph has.
      backbone: variables of the network of all positions; None: the model has none.

    Returns:
      The variables, stacked but for the network's, in the memory of the host.

    Raises:
      ValueError: there are too few photographs, or too many.
      UserError: one that is streamed cannot be read.
    """
    assert model.solve is not None
    photographs = len(images) // count
    program = _program(model.solve)
    own, _ = _bytes(model)
    each = 4 * _COPIES * photographs * math.prod(model.image_shape) + 2 * own
    block = min(count, max(1, BLOCK_BYTES // each))
    stacked: Any = None
    with Progress("place", count, images_each=photographs) as progress:
        for begin in range(0, count, block):
            # The last block is filled up with the last position: compiled once.
            places = np.minimum(np.arange(begin, begin + block), count - 1)
            found = jax.device_get(program(_tiles_at(images, places, count), backbone))
            if stacked is None:
                stacked = jax.tree.map(lambda x: np.empty((count, *x.shape[1:]), x.dtype), found)
            jax.tree.map(functools.partial(_put, places), stacked, found)
            progress.update(int(places[-1]) + 1)
    network = {name: {_NETWORK: tree} for name, tree in (backbone or {}).items()}
    return _joined({name: {} for name in network} | stacked, network)


def _tiles_at(
    images: Images, places: Int[np.ndarray, " k"], count: int
) -> UInt8[np.ndarray, "k photographs h w c"]:
    """The tiles of some positions of every photograph, of which one is read after the other."""
    photographs = len(images) // count
    tiles = np.empty((len(places), photographs, *images.shape[1:]), np.uint8)
    for number in range(photographs):
        tiles[:, number] = images[number * count + places]
    return tiles


def _put(places: Int[np.ndarray, " k"], stacked: np.ndarray, some: np.ndarray) -> None:
    stacked[places] = some


@functools.lru_cache(maxsize=4)
def _program(
    solve: Callable[..., Variables],
) -> Callable[[AnyArray, Variables | None], Variables]:
    """Compiled once for all folds of as many photographs."""

    def program(tiles: AnyArray, backbone: Variables | None) -> Variables:
        given = {} if backbone is None else {"backbone": backbone}
        return mapped(functools.partial(solve, **given))(tiles)

    return jax.jit(program)


def mapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of stacked arguments, in one program.

    On an accelerator it is vectorised. For a CPU, whose compiler makes slow loops of products of
    batches of matrices, it is a loop in the program, each turn of which has the cores to itself.
    """
    if jax.default_backend() == "cpu":
        return lambda *stacked: jax.lax.map(lambda one: function(*one), stacked)
    return jax.vmap(function)


def _bytes(model: Model) -> tuple[int, int]:
    """Of the variables of one position, and of the network of all."""
    shapes = _split(jax.eval_shape(lambda: model.init(jax.random.key(0))))
    own, network = (
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(part)) for part in shapes
    )
    return own, network


def _first(mapped: Any) -> Any:
    """Results of batches of one, as of one batch."""
    return jax.tree.map(lambda x: x[:, 0], mapped)
