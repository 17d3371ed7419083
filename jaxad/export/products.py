"""Sums of products: matrices, convolutions, windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxad.export.lowering import Lowering, NotConvertible, Value, rule


@rule("dot_general")
def _dot_general(lowering: Lowering, equation: Any, left: Value, right: Value) -> Value:
    """A matrix product; one with a fixed matrix on the right needs no reshape of the left."""
    (by_left, by_right), (batch_left, batch_right) = equation.params["dimension_numbers"]
    free_left = _others(left, by_left, batch_left)
    free_right = _others(right, by_right, batch_right)
    if not batch_left and len(by_left) == 1:
        # (..., k) by (k, n) is (..., n) in ONNX too.
        a = lowering.transpose(lowering.full(left), [*free_left, *by_left])
    else:
        a = _in_blocks(lowering, left, batch_left, free_left, by_left)
    b = _in_blocks(lowering, right, batch_right, by_right, free_right)
    node = lowering.graph.add("MatMul", a, b)
    return lowering.of_node(equation, lowering.reshape(node, equation.outvars[0].aval.shape))


def _others(value: Value, *named: Sequence[int]) -> list[int]:
    taken = {axis for axes in named for axis in axes}
    return [axis for axis in range(len(value.shape)) if axis not in taken]


def _in_blocks(lowering: Lowering, value: Value, batch: Any, rows: Any, columns: Any) -> str:
    """The value as a matrix of rows and columns for every place of the batch axes."""
    sizes = [math.prod(value.shape[axis] for axis in axes) for axes in (rows, columns)]
    shape = [*(value.shape[axis] for axis in batch), *sizes]
    order = [*batch, *rows, *columns]
    if value.known is not None:
        known = np.broadcast_to(value.known, value.shape).transpose(order)
        return lowering.graph.constant(known.reshape(shape))
    name = lowering.transpose(lowering.full(value), order)
    return name if len(order) == len(shape) else lowering.reshape(name, shape)


@rule("conv_general_dilated")
def _convolution(lowering: Lowering, equation: Any, value: Value, kernel: Value) -> Value:
    """A convolution between two transpositions, since ONNX holds channels before rows.

    One over zeros between the samples is a transposed convolution, which skips the zeros.
    """
    p, g = equation.params, lowering.graph
    if p["batch_group_count"] != 1:
        raise NotConvertible("a convolution in groups of the batch has no counterpart in ONNX")
    numbers = p["dimension_numbers"]
    x = lowering.transpose(lowering.full(value), numbers.lhs_spec)
    if any(step != 1 for step in p["lhs_dilation"]):
        y = _transposed_convolution(lowering, x, kernel, p)
    else:
        pads = _pads(p["padding"])  # a negative one takes pixels away
        y = g.add(
            "Conv",
            _padded(lowering, x, [min(number, 0) for number in pads]),
            _kernel(lowering, kernel, numbers.rhs_spec),
            strides=list(p["window_strides"]),
            dilations=list(p["rhs_dilation"]),
            pads=[max(number, 0) for number in pads],
            group=p["feature_group_count"],
        )
    back = np.argsort(numbers.out_spec)
    return lowering.of_node(equation, lowering.transpose(y, back))


def _kernel(lowering: Lowering, kernel: Value, order: Sequence[int]) -> str:
    if kernel.known is not None:
        return lowering.graph.constant(kernel.known.transpose(order))
    return lowering.transpose(lowering.full(kernel), order)


def _padded(lowering: Lowering, x: str, pads: Sequence[int]) -> str:
    """``x``, channels first, with zeros around rows and columns, or without some of these."""
    if not any(pads):
        return x
    g, half = lowering.graph, len(pads) // 2
    return g.add("Pad", x, g.integers(0, 0, *pads[:half], 0, 0, *pads[half:]))


def _pads(pairs: Sequence[Sequence[int]]) -> list[int]:
    """As ONNX takes them: all before, then all after."""
    return [int(a) for a, _ in pairs] + [int(b) for _, b in pairs]


def _transposed_convolution(lowering: Lowering, x: str, kernel: Value, p: Any) -> str:
    """Of ``x`` with channels first: the kernel turned around, padding counted from its far end."""
    if (
        kernel.known is None
        or p["feature_group_count"] != 1
        or any(step != 1 for step in (*p["window_strides"], *p["rhs_dilation"]))
    ):
        raise NotConvertible("a dilated convolution in groups has no counterpart in ONNX here")
    g, spec = lowering.graph, p["dimension_numbers"].rhs_spec
    out, into, *space = spec
    turned = np.flip(kernel.known.transpose([into, out, *space]), tuple(range(2, len(spec))))
    sizes = turned.shape[2:]
    pads = _pads([(k - 1 - a, k - 1 - b) for k, (a, b) in zip(sizes, p["padding"], strict=True)])
    y = g.add(
        "ConvTranspose",
        x,
        g.constant(turned),
        strides=list(p["lhs_dilation"]),
        pads=[max(number, 0) for number in pads],
    )
    # More padding than the kernel reaches over gives zeros.
    return _padded(lowering, y, [max(-number, 0) for number in pads])


@rule("reduce_window", "reduce_window_sum", "reduce_window_max", "reduce_window_min")
def _window(lowering: Lowering, equation: Any, value: Value, *start: Value) -> Value:
    """Sums, largest or smallest numbers of windows."""
    p = equation.params
    kind = equation.primitive.name.removeprefix("reduce_window").strip("_")
    if not kind:
        kind = {"add": "sum", "add_any": "sum"}.get(_only_operation(p), _only_operation(p))
    neutral = {"sum": 0.0, "max": -np.inf, "min": np.inf}
    if kind not in neutral or any(v.known is None or v.known != neutral[kind] for v in start):
        raise NotConvertible(f"windows reduced by {kind} have no counterpart in ONNX here")
    if any(step != 1 for step in (*p["base_dilation"], *p["window_dilation"])):
        raise NotConvertible("windows with gaps have no counterpart in ONNX here")
    name = lowering.full(value)
    if kind == "sum":
        return lowering.of_node(equation, _window_sums(lowering, name, value, p))
    if kind == "max":
        return lowering.of_node(equation, _window_maxima(lowering, name, value, p))
    negative = lowering.graph.add("Neg", name)
    name = lowering.graph.add("Neg", _window_maxima(lowering, negative, value, p))
    return lowering.of_node(equation, name)


def _only_operation(p: Any) -> str:
    names = [inner.primitive.name for inner in p["jaxpr"].eqns]
    return names[0] if len(names) == 1 else "several operations"


def _window_sums(lowering: Lowering, name: str, value: Value, p: Any) -> str:
    """A product with a band of ones along every axis that has a window."""
    g, rank = lowering.graph, len(value.shape)
    for axis, (size, step, (before, after)) in enumerate(
        zip(p["window_dimensions"], p["window_strides"], p["padding"], strict=True)
    ):
        if (size, step, before, after) == (1, 1, 0, 0):
            continue
        length = value.shape[axis]
        first = np.arange(0, length + before + after - size + 1, step) - before
        within = np.arange(length)[:, None] - first
        band = ((within >= 0) & (within < size)).astype(value.dtype)
        if axis == rank - 2:
            name = g.add("MatMul", g.constant(band.T), name)
            continue
        order = [a for a in range(rank) if a != axis] + [axis]
        name = g.add("MatMul", lowering.transpose(name, order), g.constant(band))
        name = lowering.transpose(name, np.argsort(order))
    return name


def _window_maxima(lowering: Lowering, name: str, value: Value, p: Any) -> str:
    """Pooling of rows and columns, each image and channel by itself."""
    g, rank = lowering.graph, len(value.shape)
    space = (1, 2)
    others = [axis for axis in range(rank) if axis not in space]
    if rank not in (3, 4) or any(
        (p["window_dimensions"][a], p["window_strides"][a], *p["padding"][a]) != (1, 1, 0, 0)
        for a in others
    ):
        raise NotConvertible("windows of other axes than rows and columns: none in ONNX here")
    order = (0, 3, 1, 2)
    name = lowering.transpose(name, order) if rank == 4 else g.add("Unsqueeze", name, g.integers(1))
    name = g.add(
        "MaxPool",
        name,
        kernel_shape=[int(p["window_dimensions"][a]) for a in space],
        strides=[int(p["window_strides"][a]) for a in space],
        pads=_pads([p["padding"][a] for a in space]),
    )
    if rank == 4:
        return lowering.transpose(name, np.argsort(order))
    return g.add("Squeeze", name, g.integers(1))
