"""An ONNX graph under construction: its nodes, its constants, and no name twice."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, ValueInfoProto, helper, numpy_helper


class _Constant(NamedTuple):
    name: str
    array: np.ndarray


class Graph:
    """Nodes in the order of their computation; a loop's body is a graph with a parent.

    A node that computes what another one did already is not added again. Constants belong to the
    outermost graph, and those of equal bytes are one.

    Args:
      parent: whose values the nodes of this graph may use too.
    """

    def __init__(self, parent: Graph | None = None):
        self._nodes: list[NodeProto] = []
        self._known: dict[Any, tuple[str, ...]] = {}
        self._parent = parent
        self._numbers: itertools.count = parent._numbers if parent else itertools.count()
        self._constants: dict[Any, _Constant] = parent._constants if parent else {}

    def fresh(self, stem: str) -> str:
        """A name that nothing has."""
        return f"{stem}_{next(self._numbers)}"

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """The only output of a node.

        Args:
          kind: of ONNX's operators.
          inputs: names of values; an empty one is left out.
          attributes: of the node.
        """
        return self.add_many(1, kind, *inputs, **attributes)[0]

    def add_many(self, count: int, kind: str, *inputs: str, **attributes: Any) -> tuple[str, ...]:
        """Likewise of a node with several outputs."""
        key = (kind, inputs, count, repr(sorted(attributes.items())))
        is_loop = any(isinstance(value, GraphProto) for value in attributes.values())
        found = None if is_loop else self._find(key)
        if found is None:
            found = tuple(self.fresh(kind.lower()) for _ in range(count))
            self._nodes.append(helper.make_node(kind, inputs, found, found[0], **attributes))
            self._known[key] = found
        return found

    def cast(self, name: str, dtype: Any) -> str:
        """A value as numbers of another dtype."""
        return self.add("Cast", name, to=tensor_type(dtype))

    def output(self, name: str, value: str) -> None:
        """Gives a value a name of one's choice, for users of the file."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name))

    def _find(self, key: Any) -> tuple[str, ...] | None:
        found = self._known.get(key)
        return self._parent._find(key) if found is None and self._parent else found

    def constant(self, array: Any, dtype: Any = None) -> str:
        """The name of a value that never changes."""
        array = np.ascontiguousarray(np.asarray(array, dtype)).reshape(np.shape(array))
        digest = hashlib.sha256(array.tobytes()).digest()
        key = (array.dtype.str, array.shape, digest)
        if key not in self._constants:
            self._constants[key] = _Constant(self.fresh("constant"), array)
        return self._constants[key].name

    def integers(self, *values: SupportsIndex) -> str:
        """A constant list of int64, as ONNX takes shapes, axes and positions."""
        return self.constant(np.asarray(values, np.int64).reshape(len(values)))

    def finish(
        self, name: str, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]
    ) -> GraphProto:
        """The graph, without nodes and constants that no output needs.

        Args:
          name: of the graph.
          inputs: names, types and shapes.
          outputs: likewise; each is the output of a node.
        """
        wanted = {value.name for value in outputs}
        nodes = []
        for node in reversed(self._nodes):
            if wanted.intersection(node.output):
                nodes.append(node)
                wanted.update(_used(node))
        constants = (
            [] if self._parent else [c for c in self._constants.values() if c.name in wanted]
        )
        tensors = [numpy_helper.from_array(array, name) for name, array in constants]
        return helper.make_graph(nodes[::-1], name, inputs, outputs, tensors)


def _used(node: NodeProto) -> set[str]:
    """The names that a node reads, those that its loop's body reads included."""
    names = set(node.input)
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            for inner in attribute.g.node:
                names |= _used(inner)
    return names


def tensor_type(dtype: Any) -> int:
    """ONNX's number of a NumPy dtype."""
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def described(name: str, dtype: Any, shape: Sequence[Any]) -> ValueInfoProto:
    """Name, type and shape of an input or output; what is no integer is a side that is free."""
    sides = [side if isinstance(side, int) else str(side).replace("*", " x ") for side in shape]
    return helper.make_tensor_value_info(name, tensor_type(dtype), sides)
