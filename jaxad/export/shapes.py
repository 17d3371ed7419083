"""Operations that move numbers and change none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxad.export.lowering import Lowering, NotConvertible, Value, rule

_END = np.iinfo(np.int64).max


@rule("broadcast_in_dim")
def _broadcast(lowering: Lowering, equation: Any, value: Value, *sides: Value) -> Value:
    """A reshape; the repetition is left to what comes after."""
    del sides  # free sides as values, of which the shape has the text
    shape = equation.params["shape"]
    stored: list[Any] = [1] * len(shape)
    for axis, side in zip(equation.params["broadcast_dimensions"], value.stored, strict=True):
        stored[axis] = side
    if value.known is not None:
        return lowering.known(value.known.reshape(stored), shape)
    name = value.name
    if tuple(stored) != value.stored:
        name = lowering.reshape(name, stored)
    return lowering.of_node(equation, name, stored)


@rule("reshape")
def _reshape(lowering: Lowering, equation: Any, value: Value, *sides: Value) -> Value:
    if equation.params["dimensions"] is not None:
        raise NotConvertible("a reshape of transposed axes has no counterpart in ONNX here")
    node = lowering.reshape(lowering.full(value), equation.params["new_sizes"])
    return lowering.of_node(equation, node)


@rule("squeeze")
def _squeeze(lowering: Lowering, equation: Any, value: Value) -> Value:
    gone = [int(axis) for axis in equation.params["dimensions"]]
    node = lowering.graph.add("Squeeze", lowering.name(value), lowering.graph.integers(*gone))
    stored = [side for axis, side in enumerate(value.stored) if axis not in gone]
    return lowering.of_node(equation, node, stored)


@rule("expand_dims")
def _expand_dims(lowering: Lowering, equation: Any, value: Value) -> Value:
    axes = lowering.graph.integers(*equation.params["dimensions"])
    return lowering.of_node(equation, lowering.graph.add("Unsqueeze", lowering.full(value), axes))


@rule("transpose")
def _transpose(lowering: Lowering, equation: Any, value: Value) -> Value:
    order = equation.params["permutation"]
    node = lowering.transpose(lowering.name(value), order)
    return lowering.of_node(equation, node, [value.stored[axis] for axis in order])


@rule("rev")
def _reverse(lowering: Lowering, equation: Any, value: Value) -> Value:
    axes, g = equation.params["dimensions"], lowering.graph
    count = len(axes)
    starts, ends = g.integers(*[-1] * count), g.integers(*[-_END] * count)
    node = g.add(
        "Slice", lowering.full(value), starts, ends, g.integers(*axes), g.integers(*[-1] * count)
    )
    return lowering.of_node(equation, node)


@rule("concatenate")
def _concatenate(lowering: Lowering, equation: Any, *values: Value) -> Value:
    axis = equation.params["dimension"]
    node = lowering.graph.add("Concat", *map(lowering.full, values), axis=int(axis))
    return lowering.of_node(equation, node)


@rule("stack")
def _stack(lowering: Lowering, equation: Any, *values: Value) -> Value:
    axis, g = equation.params["axis"], lowering.graph
    parts = [g.add("Unsqueeze", lowering.full(value), g.integers(axis)) for value in values]
    return lowering.of_node(equation, g.add("Concat", *parts, axis=int(axis)))


@rule("unstack")  # since jax 0.12
def _unstack(lowering: Lowering, equation: Any, value: Value) -> list[Value]:
    axis, g, outputs = equation.params["axis"], lowering.graph, equation.outvars
    ones = g.integers(*[1] * len(outputs))
    parts = g.add_many(len(outputs), "Split", lowering.full(value), ones, axis=int(axis))
    names = [g.add("Squeeze", part, g.integers(axis)) for part in parts]
    return [lowering.of_output(v, n) for v, n in zip(outputs, names, strict=True)]


@rule("split")
def _split(lowering: Lowering, equation: Any, value: Value) -> list[Value]:
    sizes, axis = equation.params["sizes"], equation.params["axis"]
    names = lowering.graph.add_many(
        len(sizes), "Split", lowering.full(value), lowering.graph.integers(*sizes), axis=int(axis)
    )
    return [lowering.of_output(v, n) for v, n in zip(equation.outvars, names, strict=True)]


@rule("pad")
def _pad(lowering: Lowering, equation: Any, value: Value, filling: Value) -> Value:
    config, g = equation.params["padding_config"], lowering.graph
    if any(between for _, _, between in config):
        raise NotConvertible("padding between numbers has no counterpart in ONNX")
    before, after = [low for low, _, _ in config], [high for _, high, _ in config]
    node = g.add("Pad", lowering.full(value), g.integers(*before, *after), lowering.full(filling))
    return lowering.of_node(equation, node)


@rule("slice")
def _slice(lowering: Lowering, equation: Any, value: Value) -> Value:
    starts, ends = equation.params["start_indices"], equation.params["limit_indices"]
    steps = equation.params["strides"]
    node = cut(lowering, lowering.full(value), value.shape, starts, ends, steps)
    return lowering.of_node(equation, node)


def cut(
    lowering: Lowering,
    name: str,
    shape: Sequence[Any],
    starts: Sequence[Any],
    ends: Sequence[Any],
    steps: Sequence[int] | None = None,
) -> str:
    """A part of an array by fixed positions; axes of which all is taken are not named."""
    steps = steps or [1] * len(starts)
    of_axis = [
        (axis, start, end, step)
        for axis, (side, start, end, step) in enumerate(
            zip(shape, starts, ends, steps, strict=True)
        )
        if (start, step) != (0, 1) or (end is not side and end != side)
    ]
    if not of_axis:
        return name
    axes, first, last, by = zip(*of_axis, strict=True)
    return lowering.graph.add("Slice", name, *map(lowering.shape, (first, last, axes, by)))
