"""Functions within functions, choices, loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.extend.core as jex
import numpy as np
from onnx import GraphProto

from jaxad.export.graph import described
from jaxad.export.lowering import CALLS, Lowering, NotConvertible, Value, rule


@rule(*CALLS)
def _call(lowering: Lowering, equation: Any, *values: Value) -> list[Value]:
    names = ("jaxpr", "call_jaxpr", "fun_jaxpr")
    inner = next(equation.params[name] for name in names if name in equation.params)
    if not isinstance(inner, jex.ClosedJaxpr):
        inner = jex.ClosedJaxpr(inner, [])
    return lowering.run(inner, values)


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
    return lowering.run(branches[min(max(int(which.known), 0), len(branches) - 1)], values)


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


def _finished(inner: Lowering, inputs: Sequence[Value], outputs: Sequence[Value]) -> GraphProto:
    """The graph of a loop's body."""
    body, named = inner.graph, []
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
    inner = lowering.inside()
    inputs = [
        Value(v.aval.shape, v.aval.dtype, v.aval.shape, inner.graph.fresh("of_loop"))
        for v in p["jaxpr"].jaxpr.invars[constants:]
    ]
    results = inner.run(p["jaxpr"], [*fixed, *inputs])
    graph = _finished(inner, inputs, results)
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

    inner = lowering.inside()
    body = inner.graph
    number = Value((), np.dtype(np.int64), (), body.fresh("of_loop"))
    again = Value((), np.dtype(np.bool_), (), body.fresh("of_loop"))
    inputs = [Value(v.shape, v.dtype, v.shape, body.fresh("of_loop")) for v in state]
    results = inner.run(p["body_jaxpr"], [*fixed, *inputs])
    outputs = [*inner.run(p["cond_jaxpr"], [*asked, *results]), *results]
    graph = _finished(inner, [number, again, *inputs], outputs)
    (first,) = lowering.run(p["cond_jaxpr"], [*asked, *state])
    names = lowering.graph.add_many(
        len(state), "Loop", "", lowering.full(first), *map(lowering.full, state), body=graph
    )
    return [lowering.of_output(v, n) for v, n in zip(equation.outvars, names, strict=True)]
