"""A function of JAX as an ONNX graph.

The function is traced with a free batch size, and every operation of the trace (its jaxpr) becomes
one or a few nodes, by the rules of the files beside this one. Two things keep the graph small and
fast:

* what does not depend on the input is computed now and stored as a constant;
* repetition along an axis (``broadcast_in_dim``) is put off until an operation needs it: arithmetic
  of ONNX repeats by itself, as NumPy's does.

A choice by platform takes the branch for platforms that are not named: XLA's forms for CPUs are
slower elsewhere.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from jaxad.export.graph import Graph
from jaxad.run.errors import UserError

BATCH = "batch"
"""The name of the free side."""


class NotConvertible(UserError):
    """The function has an operation that no rule is there for."""


@dataclasses.dataclass(frozen=True)
class Value:
    """A value of the trace.

    Attributes:
      shape: of the trace; a side may be free.
      dtype: of the trace.
      stored: sides as they are held: 1 where they have yet to be repeated.
      name: in the graph; empty where the value is known.
      known: the array itself, of shape ``stored``, where it does not depend on the input.
    """

    shape: tuple[Any, ...]
    dtype: np.dtype
    stored: tuple[Any, ...]
    name: str = ""
    known: np.ndarray | None = None


Rule = Callable[..., "Value | list[Value]"]
"""``(lowering, equation, *values) -> value or values``."""

RULES: dict[str, Rule] = {}
"""Name of an operation -> its rule."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enters a function into :data:`RULES`."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


def lower(function: Callable[..., Any], graph: Graph, inputs: dict[str, Any]) -> Any:
    """Adds what a function computes to a graph.

    Args:
      function: of arrays, in JAX; its output is a tree of arrays.
      graph: holds the inputs.
      inputs: name in the graph -> shape (without the free first side) and dtype, in order.

    Returns:
      The function's output, with a :class:`Value` for every array; all have their full shape and
      a name in the graph.

    Raises:
      NotConvertible: an operation has no counterpart.
    """
    (batch,) = jax_export.symbolic_shape(BATCH)
    shapes = [jax.ShapeDtypeStruct((batch, *shape), dtype) for shape, dtype in inputs.values()]
    traced, tree = jax.make_jaxpr(function, return_shape=True)(*shapes)
    first = next(iter(inputs))
    lowering = Lowering(graph, first)
    values = [
        Value(s.shape, np.dtype(s.dtype), s.shape, name)
        for name, s in zip(inputs, shapes, strict=True)
    ]
    results = lowering.run(traced, values)
    named = [lowering.with_name(value) for value in results]
    return jax.tree.unflatten(jax.tree.structure(tree), named)


class Lowering:
    """Carries a trace into a graph.

    Args:
      graph: that the nodes are added to.
      counted: the input whose first side is the batch size.
    """

    def __init__(self, graph: Graph, counted: str):
        self.graph, self._counted = graph, counted

    def inside(self) -> Lowering:
        """The same for the body of a loop, a graph of its own."""
        return Lowering(Graph(self.graph), self._counted)

    def run(self, traced: jex.ClosedJaxpr, inputs: Sequence[Value]) -> list[Value]:
        """Carries all operations over, in order.

        Args:
          traced: the trace, with its constants.
          inputs: of its ``invars``.
        """
        jaxpr, constants = traced.jaxpr, map(self.of_array, traced.consts)
        values: dict[Any, Value] = dict(zip(jaxpr.constvars, constants, strict=True))
        values |= zip(jaxpr.invars, inputs, strict=True)

        def read(atom: Any) -> Value:
            if isinstance(atom, jex.Literal):  # a number of Python may be held, which has no width
                aval: Any = atom.aval
                return self.of_array(np.asarray(atom.val, aval.dtype))
            return values[atom]

        for equation in jaxpr.eqns:
            results = self._apply(equation, [read(atom) for atom in equation.invars])
            values |= zip(equation.outvars, results, strict=True)
        return [read(atom) for atom in jaxpr.outvars]

    def _apply(self, equation: jex.JaxprEqn, inputs: list[Value]) -> list[Value]:
        name = equation.primitive.name
        if self._is_known(equation, inputs):
            return self._computed_now(equation, inputs)
        if name not in RULES:
            raise NotConvertible(
                f"the operation {name} has no counterpart in ONNX here; use the format stablehlo"
            )
        results = RULES[name](self, equation, *inputs)
        return results if isinstance(results, list) else [results]

    def _is_known(self, equation: jex.JaxprEqn, inputs: list[Value]) -> bool:
        if equation.primitive.name in _NOT_COMPUTED or any(v.known is None for v in inputs):
            return False
        outputs: list[Any] = [variable.aval for variable in equation.outvars]
        shapes = [value.shape for value in (*inputs, *outputs)]
        return all(isinstance(side, int) for shape in shapes for side in shape)

    def _computed_now(self, equation: jex.JaxprEqn, inputs: list[Value]) -> list[Value]:
        arrays = [np.broadcast_to(v.known, v.shape) for v in inputs if v.known is not None]
        with jax.ensure_compile_time_eval():
            found = equation.primitive.bind(*map(jnp.asarray, arrays), **equation.params)
        found = found if equation.primitive.multiple_results else [found]
        return [self.of_array(array) for array in found]

    # Values.

    def of_array(self, array: Any) -> Value:
        """A value that is known; sides along which nothing changes are held once."""
        array = np.asarray(array)
        return self.known(array, array.shape)

    def known(self, array: np.ndarray, shape: Sequence[Any]) -> Value:
        """Likewise, of a shape that the array is repeated to."""
        return Value(tuple(shape), array.dtype, array.shape, known=array)

    def of_node(self, equation: jex.JaxprEqn, name: str, stored: Sequence[Any] = ()) -> Value:
        """The only output of an equation, as a node computed it.

        Args:
          equation: whose output has shape and dtype.
          name: in the graph.
          stored: its sides, where some have yet to be repeated.
        """
        return self.of_output(equation.outvars[0], name, stored)

    def of_output(self, variable: Any, name: str, stored: Sequence[Any] = ()) -> Value:
        """Likewise of one of several outputs."""
        aval = variable.aval
        return Value(aval.shape, np.dtype(aval.dtype), tuple(stored) or aval.shape, name)

    def name(self, value: Value) -> str:
        """The name of a value as it is stored."""
        return value.name if value.known is None else self.graph.constant(value.known)

    def full(self, value: Value) -> str:
        """The name of a value in its whole shape."""
        if value.stored == value.shape:
            return self.name(value)
        return self.graph.add("Expand", self.name(value), self.shape(value.shape))

    def with_name(self, value: Value) -> Value:
        """The value in its whole shape, as the output of a node."""
        name = self.graph.add("Identity", self.full(value))
        return Value(value.shape, value.dtype, value.shape, name)

    # Shapes.

    @functools.cached_property
    def _batch(self) -> str:
        return self.graph.add("Shape", self._counted, start=0, end=1)

    def side(self, side: Any) -> str:
        """A side as a list of one int64 in the graph."""
        if isinstance(side, int):
            return self.graph.integers(side)
        times, plus = linear(side)
        name = self._batch
        if times != 1:
            name = self.graph.add("Mul", name, self.graph.integers(times))
        return self.graph.add("Add", name, self.graph.integers(plus)) if plus else name

    def shape(self, shape: Sequence[Any]) -> str:
        """A shape as a list of int64 in the graph."""
        if all(isinstance(side, int) for side in shape):
            return self.graph.integers(*shape)
        return self.graph.add("Concat", *(self.side(side) for side in shape), axis=0)

    def reshape(self, name: str, shape: Sequence[Any]) -> str:
        """The value in another shape of as many numbers."""
        free = [not isinstance(side, int) for side in shape]
        if sum(free) <= 1:  # the runtime finds one side by itself
            sides = [-1 if is_free else side for side, is_free in zip(shape, free, strict=True)]
            return self.graph.add("Reshape", name, self.graph.integers(*sides))
        return self.graph.add("Reshape", name, self.shape(shape))

    def transpose(self, name: str, order: Iterable[Any]) -> str:
        """The value with its axes in another order."""
        perm = [int(axis) for axis in order]
        return name if perm == sorted(perm) else self.graph.add("Transpose", name, perm=perm)


CALLS = ("jit", "pjit", "closed_call", "core_call", "remat", "checkpoint", "custom_jvp_call",
         "custom_vjp_call", "custom_vjp_call_jaxpr")  # fmt: skip
"""The operations that hold a function."""

# Bodies are carried over operation by operation; a broadcast is put off.
_NOT_COMPUTED = frozenset((*CALLS, "platform_index", "cond", "dim_as_value", "broadcast_in_dim"))


def linear(side: Any) -> tuple[int, int]:
    """``(times, plus)`` of a side ``times * batch + plus``.

    Raises:
      NotConvertible: it is none.
    """
    names = {
        "floordiv": lambda a, b: a // b,
        "mod": lambda a, b: a % b,
        "max": max,
        "min": min,
        "__builtins__": {},
    }
    # The text of a free side is its public form: "2*batch + 3".
    first, second, third, many = (
        int(eval(str(side), {**names, BATCH: count})) for count in (1, 2, 3, 60)
    )
    times = second - first
    if third - second != times or many != first + 59 * times:
        raise NotConvertible(
            f"a shape depends on the batch size in a way that is not linear: {side}"
        )
    return times, first - times
