"""Functions within functions, choices, loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.extend.core as jex
import numpy as np
from onnx import GraphProto

from jaxad.export.graph import Graph, described
from jaxad.export.lowering import Lowering, NotConvertible, Value, rule


@rule(
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "remat",
    "checkpoint",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
)
def _call(lowering: Lowering, equation: Any, *values: Value) -> list[Value]:
    names = ("jaxpr", "call_jaxpr", "fun_jaxpr")
    inner = next(equation.params[name] for name in names if name in equation.params)
    if isinstance(inner, jex.ClosedJaxpr):
        constants = [lowering.of_array(array) for array in inner.consts]
        return lowering.run(inner.jaxpr, constants, values)
    return lowering.run(inner, [], values)


@rule("platform_index")
def _platform(lowering: Lowering, equation: Any) -> Value:
    """The branch for all platforms that are not named."""
    platforms = equation.params["platforms"]
    if None not in platforms:
        raise NotConvertible("a choice by platform without a default has no counterpart in ONNX")
    return lowering.of_array(np.asarray(platforms.index(None), np.int32))


@rule("cond")
def _cond(lowering: Lowering, equation: Any, which: Value, *values: Value) -> list[Value]:
    if which.known is None:
        raise NotConvertible("a choice by a computed value has no counterpart in ONNX here")
    branches = equation.params["branches"]
    branch = branches[min(max(int(which.known), 0), len(branches) - 1)]
    constants = [lowering.of_array(array) for array in branch.consts]
    return lowering.run(branch.jaxpr, constants, values)


@rule("dim_as_value")
def _dim_as_value(lowering: Lowering, equation: Any) -> Value:
    g = lowering.graph
    name = g.add("Squeeze", lowering.side(equation.params["dim"]), g.integers(0))
    dtype = equation.outvars[0].aval.dtype
    return lowering.of_node(equation, g.cast(name, dtype))


def _parts_of(parameters: Mapping[str, Any]) -> tuple[int, int]:
    """Of a loop's operands: up to where they are constants, and up to where the state."""
    if "num_consts" in parameters:
        constants, state = parameters["num_consts"], parameters["num_carry"]
    else:  # since jax 0.12
        constants, state, _ = map(len, parameters["ft_in"].unpack())
    return constants, constants + state


def _finished(
    body: Graph, inner: Lowering, inputs: Sequence[Value], outputs: Sequence[Value]
) -> GraphProto:
    """The graph of a loop's body."""
    named = []
    for value in outputs:  # two that are the same value have two names
        name = body.fresh("of_body")
        body.output(name, inner.full(value))
        named.append(described(name, value.dtype, value.shape))
    given = [described(v.name, v.dtype, v.shape) for v in inputs]
    return body.finish(body.fresh("body"), given, named)


@rule("scan")
def _scan(lowering: Lowering, equation: Any, *values: Value) -> list[Value]:
    """ONNX's Scan; what the loop does not change is read from outside by its body."""
    p = equation.params
    constants, carried = _parts_of(p)
    fixed, state, scanned = values[:constants], values[constants:carried], values[carried:]
    if not scanned:
        raise NotConvertible("a loop over nothing has no counterpart in ONNX here")
    body = Graph(lowering.graph)
    inner = lowering.inside(body)
    inputs = [
        Value(v.aval.shape, v.aval.dtype, v.aval.shape, body.fresh("of_loop"))
        for v in p["jaxpr"].jaxpr.invars[constants:]
    ]
    closed = [inner.of_array(array) for array in p["jaxpr"].consts]
    results = inner.run(p["jaxpr"].jaxpr, closed, [*fixed, *inputs])
    graph = _finished(body, inner, inputs, results)
    backwards = {}
    if p["reverse"]:
        backwards = {
            "scan_input_directions": [1] * len(scanned),
            "scan_output_directions": [1] * (len(results) - len(state)),
        }
    names = lowering.graph.add_many(
        len(equation.outvars),
        "Scan",
        *(lowering.full(value) for value in (*state, *scanned)),
        body=graph,
        num_scan_inputs=len(scanned),
        **{name: axes for name, axes in backwards.items() if axes},
    )
    return [lowering.of_output(v, n) for v, n in zip(equation.outvars, names, strict=True)]


@rule("while")
def _while(lowering: Lowering, equation: Any, *values: Value) -> list[Value]:
    """ONNX's Loop, whose body says whether it is to run again."""
    p = equation.params
    if p["cond_jaxpr"].out_avals[0].shape:
        raise NotConvertible("a loop that ends image by image has no counterpart in ONNX here")
    of_condition, of_body = p["cond_nconsts"], p["body_nconsts"]
    asked, fixed = values[:of_condition], values[of_condition : of_condition + of_body]
    state = values[of_condition + of_body :]

    def carried(where: Lowering, name: str, *inputs: Value) -> list[Value]:
        traced = p[name]
        constants = [where.of_array(array) for array in traced.consts]
        return where.run(traced.jaxpr, constants, inputs)

    body = Graph(lowering.graph)
    inner = lowering.inside(body)
    number = Value((), np.dtype(np.int64), (), body.fresh("of_loop"))
    again = Value((), np.dtype(np.bool_), (), body.fresh("of_loop"))
    inputs = [Value(v.shape, v.dtype, v.shape, body.fresh("of_loop")) for v in state]
    results = carried(inner, "body_jaxpr", *fixed, *inputs)
    outputs = [*carried(inner, "cond_jaxpr", *asked, *results), *results]
    graph = _finished(body, inner, [number, again, *inputs], outputs)
    (first,) = carried(lowering, "cond_jaxpr", *asked, *state)
    names = lowering.graph.add_many(
        len(state), "Loop", "", lowering.full(first), *map(lowering.full, state), body=graph
    )
    return [lowering.of_output(v, n) for v, n in zip(equation.outvars, names, strict=True)]
