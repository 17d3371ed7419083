"""Parts of arrays at positions that are arrays themselves."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from jaxad.export.lowering import Lowering, NotConvertible, Value, rule
from jaxad.export.shapes import cut


@rule("gather")
def _gather(lowering: Lowering, equation: Any, value: Value, indices: Value) -> Value:
    numbers = equation.params["dimension_numbers"]
    if numbers.operand_batching_dims or numbers.start_indices_batching_dims:
        raise NotConvertible("a gather for every image of its own has no counterpart in ONNX here")
    axis = _taken_axis(value, equation.params["slice_sizes"], numbers)
    if axis is not None:
        return _take(lowering, equation, value, indices, axis)
    if indices.known is None:
        raise NotConvertible(
            "a gather of blocks at computed places has no counterpart in ONNX here"
        )
    return _windows(lowering, equation, value, np.broadcast_to(indices.known, indices.shape))


def _taken_axis(value: Value, sizes: Any, numbers: Any) -> int | None:
    """The only axis along which single rows are taken, the others being whole; None: otherwise."""
    if numbers.collapsed_slice_dims != numbers.start_index_map or len(numbers.start_index_map) != 1:
        return None
    (axis,) = numbers.start_index_map
    whole = all(sizes[other] == side for other, side in enumerate(value.shape) if other != axis)
    return axis if whole else None


def _take(lowering: Lowering, equation: Any, value: Value, indices: Value, axis: int) -> Value:
    g, numbers = lowering.graph, equation.params["dimension_numbers"]
    places = indices.shape[:-1]
    if indices.known is not None:
        known = np.broadcast_to(indices.known, indices.shape)[..., 0]
        if (
            isinstance(value.shape[axis], int)
            and not ((known >= 0) & (known < value.shape[axis])).all()
        ):
            raise NotConvertible("a gather beyond the array has no counterpart in ONNX here")
        where = g.constant(known, np.int64)
    else:
        where = g.add("Squeeze", lowering.full(indices), g.integers(len(places)))
    node = g.add("Gather", lowering.full(value), where, axis=int(axis))
    # ONNX puts the axes of the places where the axis was; the trace says where they are to be.
    rank = len(value.shape) - 1 + len(places)
    offset = list(numbers.offset_dims)
    of_places = [d for d in range(rank) if d not in offset]
    now = [*offset[:axis], *of_places, *offset[axis:]]
    return lowering.of_node(equation, lowering.transpose(node, [now.index(d) for d in range(rank)]))


def _windows(lowering: Lowering, equation: Any, value: Value, indices: np.ndarray) -> Value:
    """Blocks of one size at known places: a slice each."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    g, name = lowering.graph, lowering.full(value)
    places = indices.shape[:-1]
    pieces = []
    for place in itertools.product(*map(range, places)):
        starts: list[Any] = [0] * len(value.shape)
        for axis, start in zip(numbers.start_index_map, indices[place], strict=True):
            starts[axis] = _inside(int(start), value.shape[axis], sizes[axis])
        ends = [start + size for start, size in zip(starts, sizes, strict=True)]
        pieces.append(cut(lowering, name, value.shape, starts, ends))
    kept = [s for axis, s in enumerate(sizes) if axis not in numbers.collapsed_slice_dims]
    if not places:
        return lowering.of_node(equation, lowering.reshape(pieces[0], kept))
    if len(places) != 1:
        raise NotConvertible("a grid of blocks has no counterpart in ONNX here")
    (at,) = [d for d in range(len(kept) + 1) if d not in numbers.offset_dims]
    shaped = [g.add("Unsqueeze", lowering.reshape(p, kept), g.integers(at)) for p in pieces]
    return lowering.of_node(equation, g.add("Concat", *shaped, axis=at))


def _inside(start: int, side: Any, size: Any) -> int:
    """Where a block begins: one that would reach beyond the array is moved back."""
    if not isinstance(side, int) or not isinstance(size, int):
        return max(start, 0)
    return min(max(start, 0), side - size)


@rule("dynamic_slice")
def _dynamic_slice(lowering: Lowering, equation: Any, value: Value, *starts: Value) -> Value:
    sizes, g = equation.params["slice_sizes"], lowering.graph
    axes = _partial(value.shape, sizes)
    if not axes:
        return value
    first = [_start(lowering, starts[axis], value.shape[axis], sizes[axis]) for axis in axes]
    last = [
        g.add("Add", begin, lowering.side(sizes[axis]))
        for begin, axis in zip(first, axes, strict=True)
    ]
    node = g.add(
        "Slice", lowering.full(value), _joined(g, first), _joined(g, last), g.integers(*axes)
    )
    return lowering.of_node(equation, node)


@rule("dynamic_update_slice")
def _dynamic_update(
    lowering: Lowering, equation: Any, value: Value, part: Value, *starts: Value
) -> Value:
    axes, g = _partial(value.shape, part.shape), lowering.graph
    if len(axes) > 1:
        raise NotConvertible("a block set into an array along several axes has no counterpart here")
    if not axes:
        return part
    (axis,) = axes
    start = _start(lowering, starts[axis], value.shape[axis], part.shape[axis])
    stop = g.add("Add", start, lowering.side(part.shape[axis]))
    whole, where = lowering.full(value), g.integers(axis)
    before = g.add("Slice", whole, g.integers(0), start, where)
    after = g.add("Slice", whole, stop, lowering.side(value.shape[axis]), where)
    node = g.add("Concat", before, lowering.full(part), after, axis=axis)
    return lowering.of_node(equation, node)


def _partial(shape: Any, sizes: Any) -> list[int]:
    """The axes of which not all is meant."""
    pairs = enumerate(zip(shape, sizes, strict=True))
    return [axis for axis, (side, size) in pairs if side is not size and side != size]


def _start(lowering: Lowering, start: Value, side: Any, size: Any) -> str:
    """Where a block begins, as a list of one int64; kept inside the array, as JAX does."""
    g = lowering.graph
    if start.known is not None:
        return g.integers(_inside(int(start.known), side, size))
    last = g.add("Sub", lowering.side(side), lowering.side(size))
    name = g.cast(lowering.full(start), np.int64)
    name = g.add("Reshape", name, g.integers(1))
    return g.add("Min", g.add("Max", name, g.integers(0)), last)


def _joined(graph: Any, lists: list[str]) -> str:
    return lists[0] if len(lists) == 1 else graph.add("Concat", *lists, axis=0)
