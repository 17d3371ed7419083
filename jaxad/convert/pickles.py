"""Reads the pickles of PyTorch's files as data, without Python's unpickler.

A pickle is a program: Python's own reader imports whatever it names and calls it. Here its
instructions are carried out by a small machine that knows numbers, strings, lists, tuples, dicts,
and the handful of names in :data:`KNOWN`, each of which is a note of what was asked for and never
something that could be called. Nothing is imported, no attribute is set, no function is run; a
pickle that names anything else is refused by that name.
"""

from __future__ import annotations

import io
import pickletools
from typing import Any, NamedTuple

from jaxad.run.errors import UserError

DTYPES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
"""PyTorch's storage types -> names of numpy's dtypes (with ml_dtypes)."""

TENSOR = "torch._utils._rebuild_tensor_v2"
PARAMETER = "torch._utils._rebuild_parameter"
ORDERED_DICT = "collections.OrderedDict"
NAMESPACE = "argparse.Namespace"
SIZE = "torch.Size"
KNOWN = frozenset({TENSOR, PARAMETER, ORDERED_DICT, NAMESPACE, SIZE, *DTYPES})
"""Every name that a pickle may ask for."""

MOST_INSTRUCTIONS = 20_000_000
"""More than any training checkpoint has."""


class Global(NamedTuple):
    """A name that the pickle asks for; a note, not the thing."""

    name: str


class Storage(NamedTuple):
    """A block of numbers elsewhere in the file."""

    key: str
    dtype: str
    count: int


class Tensor(NamedTuple):
    """A strided view of a storage; offset and strides in numbers, as PyTorch has them."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Bag(dict):
    """What the pickle says of an object whose class does not matter (``argparse.Namespace``)."""


class BadPickleError(Exception):
    """The pickle is damaged; the message says how."""


def read_pickle(data: bytes, *, source: str, start: int = 0) -> tuple[Any, int]:
    """Reads one pickle.

    Args:
      data: the pickle, perhaps among other bytes.
      source: the file's name, for messages.
      start: where it begins.

    Returns:
      Plain values, with :class:`Tensor` and :class:`Bag` within, and the place after its end.

    Raises:
      UserError: it asks for a name or an instruction that weights do not need, or is damaged.
    """
    stream = io.BytesIO(data)
    stream.seek(start)
    try:
        return _Machine(source).run(stream), stream.tell()
    except UserError:
        raise
    # Bytes that are no pickle fail anywhere in the standard library's decoder of instructions.
    except (BadPickleError, ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise UserError(f"{source} is damaged: its pickle cannot be read ({error})") from None


class _Mark:
    """Where the items of a tuple, list or dict begin on the stack."""


class _Machine:
    """The stack, the memo and the instructions that weights need."""

    def __init__(self, source: str):
        self._source = source
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, stream: io.BytesIO) -> Any:
        """Carries out the instructions up to STOP."""
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > MOST_INSTRUCTIONS:
                raise BadPickleError("it has too many instructions")
            if opcode.name == "STOP":
                value = self._pop()
                if self._stack:
                    raise BadPickleError("values are left over")
                return value
            if opcode.name in _CONSTANTS:
                self._stack.append(argument)
            elif opcode.name in _STEPS:
                _STEPS[opcode.name](self, argument)
            else:
                raise self._refusal(f"to carry out the instruction {opcode.name}")
        raise BadPickleError("it has no end")

    def _refusal(self, request: str) -> UserError:
        return UserError(
            f"{self._source} asks {request}; refused, nothing was run. Weights need no such thing: "
            "take a .safetensors file, or one of torch.save(model.state_dict(), ...) alone"
        )

    def _pop(self) -> Any:
        value = self._stack.pop()
        if isinstance(value, _Mark):
            raise BadPickleError("a value is missing")
        return value

    def _top(self, kind: type) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise BadPickleError(f"no {kind.__name__} to add to")
        return self._stack[-1]

    def _to_mark(self) -> list[Any]:
        for i in range(len(self._stack) - 1, -1, -1):
            if isinstance(self._stack[i], _Mark):
                items = self._stack[i + 1 :]
                del self._stack[i:]
                return items
        raise BadPickleError("the beginning of a sequence is missing")

    def _tuple(self, length: int | None) -> None:
        if length is None:
            items = self._to_mark()
        else:
            items = [self._pop() for _ in range(length)][::-1]
        self._stack.append(tuple(items))

    def _append(self, items: list[Any]) -> None:
        self._top(list).extend(items)

    def _set(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise BadPickleError("a key without a value")
        target = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int | float | bool | None):
                raise BadPickleError(f"a {type(key).__name__} as a key")
            target[key] = value

    def _dict(self) -> None:
        items = self._to_mark()
        self._stack.append({})
        self._set(items)

    def _memoize(self, index: int | None) -> None:
        value = self._stack[-1]
        if isinstance(value, _Mark):
            raise BadPickleError("a value is missing")
        self._memo[len(self._memo) if index is None else index] = value

    def _name(self, name: str) -> None:
        if name not in KNOWN:
            raise self._refusal(f"to run {name}")
        self._stack.append(Global(name))

    def _instance(self, name: str) -> None:
        if name not in KNOWN:
            raise self._refusal(f"to run {name}")
        raise self._refusal("to carry out the instruction INST")

    def _stacked_name(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise BadPickleError("a name that is no string")
        self._name(f"{module}.{name}")

    def _call(self, _: Any) -> None:
        arguments, what = self._pop(), self._pop()
        if not isinstance(what, Global) or not isinstance(arguments, tuple):
            raise self._refusal(f"to call {_short(what)}")
        if what.name == TENSOR:
            self._stack.append(_tensor(*arguments[:4]))
        elif what.name == PARAMETER:
            if not arguments or not isinstance(arguments[0], Tensor):
                raise BadPickleError("a parameter without a tensor")
            self._stack.append(arguments[0])
        elif what.name == ORDERED_DICT:
            # Old files give the items as a list of pairs, newer ones add them one by one.
            self._stack.append(_pairs(*arguments))
        elif what.name == NAMESPACE:
            self._stack.append(Bag())
        elif what.name == SIZE:
            self._stack.append(_whole_numbers(*arguments))
        else:
            raise self._refusal(f"to call {what.name}")

    def _build(self, _: Any) -> None:
        state, target = self._pop(), self._stack[-1]
        if not isinstance(target, dict):
            raise self._refusal(f"to change {_short(target)}")
        if isinstance(target, Bag) and isinstance(state, dict):
            target.update(state)
        # What PyTorch hangs on a state dict (`_metadata`) says nothing about the weights.

    def _persistent(self, _: Any) -> None:
        identity = self._pop()
        match identity:
            case ("storage", Global(kind), str(key), str(), int(count), *rest) if (
                kind in DTYPES and rest in ([], [None])
            ):
                self._stack.append(Storage(key, DTYPES[kind], count))
            case _:
                raise BadPickleError(f"{_short(identity)} is no storage")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    if not isinstance(storage, Storage) or not isinstance(offset, int):
        raise BadPickleError("a tensor without a storage")
    shape, strides = _whole_numbers(shape), _whole_numbers(strides)
    if len(shape) != len(strides) or len(shape) > 8:
        raise BadPickleError(f"a tensor of shape {shape} with strides {strides}")
    return Tensor(storage, offset, shape, strides)


def _whole_numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or not all(type(v) is int for v in values):
        raise BadPickleError(f"{_short(values)} is no shape")
    return tuple(values)


def _pairs(items: Any = ()) -> dict[Any, Any]:
    if not isinstance(items, list | tuple):
        raise BadPickleError("an ordered dict of something else than pairs")
    result = {}
    for item in items:
        match item:
            case [str(key), value]:
                result[key] = value
            case _:
                raise BadPickleError("an ordered dict of something else than pairs")
    return result


def _short(value: Any) -> str:
    """A value in a message; nested ones can be long, or refer to themselves."""
    if isinstance(value, Global):
        return value.name
    return repr(value)[:80] if isinstance(value, str | int | float) else type(value).__name__


_CONSTANTS = frozenset(
    ["INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
     "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING",
     "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"]
)  # fmt: skip
"""Instructions that put their own argument on the stack."""

_STEPS = {
    "PROTO": lambda m, _: None,
    "FRAME": lambda m, _: None,
    "NONE": lambda m, _: m._stack.append(None),
    "NEWTRUE": lambda m, _: m._stack.append(True),
    "NEWFALSE": lambda m, _: m._stack.append(False),
    "MARK": lambda m, _: m._stack.append(_Mark()),
    "POP": lambda m, _: m._stack.pop(),
    "POP_MARK": lambda m, _: m._to_mark(),
    "DUP": lambda m, _: m._stack.append(m._stack[-1]),
    "EMPTY_TUPLE": lambda m, _: m._stack.append(()),
    "EMPTY_LIST": lambda m, _: m._stack.append([]),
    "EMPTY_DICT": lambda m, _: m._stack.append({}),
    "TUPLE": lambda m, _: m._tuple(None),
    "TUPLE1": lambda m, _: m._tuple(1),
    "TUPLE2": lambda m, _: m._tuple(2),
    "TUPLE3": lambda m, _: m._tuple(3),
    "LIST": lambda m, _: m._stack.append(m._to_mark()),
    "DICT": lambda m, _: m._dict(),
    "APPEND": lambda m, _: m._append([m._pop()]),
    "APPENDS": lambda m, _: m._append(m._to_mark()),
    "SETITEM": lambda m, _: m._set([m._pop(), m._pop()][::-1]),
    "SETITEMS": lambda m, _: m._set(m._to_mark()),
    "PUT": lambda m, index: m._memoize(index),
    "BINPUT": lambda m, index: m._memoize(index),
    "LONG_BINPUT": lambda m, index: m._memoize(index),
    "MEMOIZE": lambda m, _: m._memoize(None),
    "GET": lambda m, index: m._stack.append(m._memo[index]),
    "BINGET": lambda m, index: m._stack.append(m._memo[index]),
    "LONG_BINGET": lambda m, index: m._stack.append(m._memo[index]),
    "GLOBAL": lambda m, name: m._name(name.replace(" ", ".")),
    "INST": lambda m, name: m._instance(name.replace(" ", ".")),
    "STACK_GLOBAL": _Machine._stacked_name,
    "REDUCE": _Machine._call,
    "NEWOBJ": _Machine._call,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._persistent,
}
"""All other instructions that are carried out; the rest are refused."""
