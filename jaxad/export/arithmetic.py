"""Operations number by number, and reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxad.export.lowering import Lowering, NotConvertible, Value, rule

_BY_ONE_NODE = {
    "abs": "Abs",
    "add": "Add",
    "add_any": "Add",
    "and": "And",
    "ceil": "Ceil",
    "cos": "Cos",
    "div": "Div",
    "eq": "Equal",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "log": "Log",
    "logistic": "Sigmoid",
    "lt": "Less",
    "max": "Max",
    "min": "Min",
    "mul": "Mul",
    "neg": "Neg",
    "not": "Not",
    "or": "Or",
    "pow": "Pow",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "sub": "Sub",
    "tanh": "Tanh",
}
"""Name of an operation -> the node that is all of it; the logic of bits is that of booleans."""

_OF_BOOLEANS = ("and", "or", "not")


def repeated_to(values: tuple[Value, ...]) -> tuple[Any, ...]:
    """The sides that arithmetic of values gives as they are stored."""
    rank = max(len(value.stored) for value in values)
    stored = [(1,) * (rank - len(value.stored)) + value.stored for value in values]
    return tuple(
        next((side for side in sides if side != 1), 1) for sides in zip(*stored, strict=True)
    )


def _arithmetic(kind: str) -> Callable[..., Value]:
    def apply(lowering: Lowering, equation: Any, *values: Value) -> Value:
        name = equation.primitive.name
        if name in _OF_BOOLEANS and values[0].dtype != np.bool_:
            raise NotConvertible(
                f"the operation {name} of integers has no counterpart in ONNX here"
            )
        node = lowering.graph.add(kind, *map(lowering.name, values))
        return lowering.of_node(equation, node, repeated_to(values))

    return apply


for _name, _kind in _BY_ONE_NODE.items():
    rule(_name)(_arithmetic(_kind))


def _composed(compute: Callable[..., str]) -> Callable[..., Value]:
    """A rule from ``(add, constant, *names) -> name``, whose nodes are arithmetic all."""

    def apply(lowering: Lowering, equation: Any, *values: Value) -> Value:
        dtype = values[-1].dtype

        def constant(number: float) -> str:
            return lowering.graph.constant(number, dtype)

        node = compute(lowering.graph.add, constant, *map(lowering.name, values))
        return lowering.of_node(equation, node, repeated_to(values))

    return apply


_COMPOSED: dict[str, Callable[..., str]] = {
    "clamp": lambda add, constant, low, x, high: add("Min", add("Max", x, low), high),
    "erfc": lambda add, constant, x: add("Sub", constant(1), add("Erf", x)),
    "expm1": lambda add, constant, x: add("Sub", add("Exp", x), constant(1)),
    "is_finite": lambda add, constant, x: add("Not", add("Or", add("IsInf", x), add("IsNaN", x))),
    "log1p": lambda add, constant, x: add("Log", add("Add", x, constant(1))),
    "ne": lambda add, constant, x, y: add("Not", add("Equal", x, y)),
    "rem": lambda add, constant, x, y: add("Mod", x, y, fmod=1),
    "rsqrt": lambda add, constant, x: add("Reciprocal", add("Sqrt", x)),
    "square": lambda add, constant, x: add("Mul", x, x),
}
for _name, _compute in _COMPOSED.items():
    rule(_name)(_composed(_compute))


@rule("integer_pow")
def _integer_pow(lowering: Lowering, equation: Any, value: Value) -> Value:
    exponent, name = equation.params["y"], lowering.name(value)
    if exponent == 2:
        node = lowering.graph.add("Mul", name, name)
    else:
        node = lowering.graph.add("Pow", name, lowering.graph.constant(exponent, value.dtype))
    return lowering.of_node(equation, node, value.stored)


@rule("round")
def _round(lowering: Lowering, equation: Any, value: Value) -> Value:
    if equation.params["rounding_method"].name != "TO_NEAREST_EVEN":
        raise NotConvertible("rounding halves away from zero has no counterpart in ONNX")
    return lowering.of_node(
        equation, lowering.graph.add("Round", lowering.name(value)), value.stored
    )


@rule("convert_element_type")
def _convert(lowering: Lowering, equation: Any, value: Value) -> Value:
    dtype = equation.params["new_dtype"]
    if dtype == value.dtype:
        return value
    name = lowering.name(value)
    if dtype.kind == "u" and value.dtype.kind == "f":
        # Straight to bytes, runtimes disagree beyond the range.
        name = lowering.graph.cast(name, np.int32)
    node = lowering.graph.cast(name, dtype)
    return lowering.of_node(equation, node, value.stored)


@rule("select_n")
def _select(lowering: Lowering, equation: Any, which: Value, *cases: Value) -> Value:
    if which.dtype != np.bool_ or len(cases) != 2:
        raise NotConvertible("a choice among more than two arrays has no counterpart in ONNX here")
    g, (condition, no, yes) = lowering.graph, map(lowering.name, (which, *cases))
    if cases[0].dtype == np.bool_:  # of which runtimes have no Where
        unless = g.add("And", g.add("Not", condition), no)
        node = g.add("Or", g.add("And", condition, yes), unless)
    else:
        node = g.add("Where", condition, yes, no)
    return lowering.of_node(equation, node, repeated_to((which, *cases)))


@rule("stop_gradient", "copy", "copy_p", "optimization_barrier", "reduce_precision")
def _unchanged(lowering: Lowering, equation: Any, *values: Value) -> list[Value]:
    return list(values)


# Reductions.

_REDUCTIONS = {
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd",
    "reduce_sum": "ReduceSum",
}


@rule(*_REDUCTIONS)
def _reduce(lowering: Lowering, equation: Any, value: Value) -> Value:
    axes = equation.params["axes"]
    if not axes:
        return value
    node = lowering.graph.add(
        _REDUCTIONS[equation.primitive.name],
        lowering.full(value),
        lowering.graph.integers(*axes),
        keepdims=0,
    )
    return lowering.of_node(equation, node)


@rule("reduce_and", "reduce_or")
def _reduce_booleans(lowering: Lowering, equation: Any, value: Value) -> Value:
    """The smallest or largest of zeros and ones."""
    if value.dtype != np.bool_:
        raise NotConvertible("a reduction of bits has no counterpart in ONNX")
    kind = {"reduce_and": "ReduceMin", "reduce_or": "ReduceMax"}[equation.primitive.name]
    axes, g = lowering.graph.integers(*equation.params["axes"]), lowering.graph
    number = g.cast(lowering.full(value), np.int32)
    node = g.add(kind, number, axes, keepdims=0) if equation.params["axes"] else number
    return lowering.of_node(equation, g.cast(node, np.bool_))


@rule("argmin", "argmax")
def _position(lowering: Lowering, equation: Any, value: Value) -> Value:
    (axis,) = equation.params["axes"]
    kind = {"argmin": "ArgMin", "argmax": "ArgMax"}[equation.primitive.name]
    node = lowering.graph.add(kind, lowering.full(value), axis=int(axis), keepdims=0)
    dtype = equation.params["index_dtype"]
    return lowering.of_node(equation, lowering.graph.cast(node, dtype))


@rule("top_k")
def _top_k(lowering: Lowering, equation: Any, value: Value) -> list[Value]:
    count = lowering.graph.integers(equation.params["k"])
    axis = equation.params.get("axis", len(value.shape) - 1)
    highest, where = lowering.graph.add_many(
        2, "TopK", lowering.full(value), count, axis=int(axis), largest=1, sorted=1
    )
    where = lowering.graph.cast(where, np.int32)
    first, second = equation.outvars
    return [lowering.of_output(first, highest), lowering.of_output(second, where)]
