"""Reads pickles as data, without Python's unpickler: PyTorch's files, the batches of CIFAR-10.

A pickle is a program: Python's own reader imports whatever it names and calls it. Here its
instructions are carried out by a small machine that knows numbers, strings, lists, tuples, dicts,
and the handful of names in a :class:`Vocabulary`, each of which is a note of what was asked for and
never the thing itself. Nothing is imported, no attribute is set, no function of the pickle's choice
is run; a pickle that names anything else is refused by that name.
"""

from __future__ import annotations

import io
import pickletools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxad.run.errors import UserError
from jaxad.run.text import brief

MOST_INSTRUCTIONS = 20_000_000
"""More than any training checkpoint has."""

_MOST_GROWTH, _ALWAYS_ALLOWED = 100, 2**20
"""Bytes that notes may take for each byte of the pickle, and beside: what is remembered can be
named again in two bytes, and would be copied each time."""

_LARGEST_KEY = 2**60
"""From 2**61 - 1 on whole numbers can be chosen that all have the same hash: a dict of them takes
hours to fill."""


class Global(NamedTuple):
    """A name that the pickle asks for; a note, not the thing."""

    name: str


@dataclass(frozen=True)
class Vocabulary:
    """What the pickles of one kind of file may ask for.

    Attributes:
      names: every name they may hold -> what makes the note of a call from its arguments; None
        where the name is only handed on. The functions raise :class:`BadPickleError` for arguments
        that do not fit.
      change: ``(note, state) -> bool``: takes the state that a note is given, or refuses it.
      persistent: makes the note of something that lies elsewhere in the file; None: refused.
      advice: ends the sentence of a refusal.
    """

    names: Mapping[str, Callable[..., Any] | None]
    change: Callable[[Any, Any], bool]
    persistent: Callable[[Any], Any] | None
    advice: str


class BadPickleError(Exception):
    """The pickle is damaged; the message says how."""


def read_pickle(
    data: bytes, vocabulary: Vocabulary, *, source: str, start: int = 0
) -> tuple[Any, int]:
    """Reads one pickle.

    Args:
      data: the pickle, perhaps among other bytes.
      vocabulary: what it may ask for.
      source: the file's name, for messages.
      start: where it begins.

    Returns:
      Plain values and the vocabulary's notes, and the place after the pickle's end.

    Raises:
      UserError: it asks for a name or an instruction outside the vocabulary, or is damaged.
    """
    stream = io.BytesIO(data)
    stream.seek(start)
    try:
        return _Machine(vocabulary, source).run(stream), stream.tell()
    except UserError:
        raise
    # Bytes that are no pickle fail anywhere in the standard library's decoder of instructions.
    except (BadPickleError, ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise UserError(f"{source} is damaged: its pickle cannot be read ({error})") from None


class _Mark:
    """Where the items of a tuple, list or dict begin on the stack."""


class _Machine:
    """The stack, the memo and the instructions that data needs."""

    def __init__(self, vocabulary: Vocabulary, source: str):
        self._vocabulary, self._source = vocabulary, source
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._made = self._place = 0

    def run(self, stream: io.BytesIO) -> Any:
        """Carries out the instructions up to STOP."""
        begin = stream.tell()
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
                self._place = stream.tell() - begin
                _STEPS[opcode.name](self, argument)
            else:
                raise self._refusal(f"to carry out the instruction {opcode.name}")
        raise BadPickleError("it has no end")

    def _refusal(self, request: str) -> UserError:
        return UserError(
            f"{self._source} asks {request}; refused, nothing was run. {self._vocabulary.advice}"
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

    def _tuple(self, length: int) -> None:
        items = [self._pop() for _ in range(length)]
        self._stack.append(tuple(items[::-1]))

    def _append(self, items: list[Any]) -> None:
        self._top(list).extend(items)

    def _set(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise BadPickleError("a key without a value")
        target = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | bytes | int | float | bool | None):
                raise BadPickleError(f"a {type(key).__name__} as a key")
            if isinstance(key, int) and abs(key) > _LARGEST_KEY:
                raise BadPickleError("a huge number as a key")
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
        if name not in self._vocabulary.names:
            raise self._refusal(f"to run {brief(name)}")
        self._stack.append(Global(name))

    def _instance(self, name: str) -> None:
        if name not in self._vocabulary.names:
            raise self._refusal(f"to run {brief(name)}")
        raise self._refusal("to carry out the instruction INST")

    def _stacked_name(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise BadPickleError("a name that is no string")
        self._name(f"{module}.{name}")

    def _call(self, _: Any) -> None:
        arguments, what = self._pop(), self._pop()
        if not isinstance(what, Global) or not isinstance(arguments, tuple):
            raise self._refusal(f"to call {short(what)}")
        note = self._vocabulary.names[what.name]
        if note is None:
            raise self._refusal(f"to call {what.name}")
        made = note(*arguments)
        self._grow(made)
        self._stack.append(made)

    def _build(self, _: Any) -> None:
        state, target = self._pop(), self._stack[-1]
        self._grow(state, *(state if isinstance(state, tuple) else ()))
        if not self._vocabulary.change(target, state):
            raise self._refusal(f"to change {short(target)}")

    def _grow(self, *copied: Any) -> None:
        """Counts what is made anew, of what was read so far.

        Raises:
          BadPickleError: it is far more.
        """
        self._made += sum(map(sys.getsizeof, copied))
        if self._made > _MOST_GROWTH * self._place + _ALWAYS_ALLOWED:
            raise BadPickleError("it makes far more of its content than there is")

    def _persistent(self, _: Any) -> None:
        if self._vocabulary.persistent is None:
            raise self._refusal("to carry out the instruction BINPERSID")
        self._stack.append(self._vocabulary.persistent(self._pop()))


def short(value: Any) -> str:
    """A value in a message; nested ones can be long, or refer to themselves."""
    if isinstance(value, Global):
        return value.name
    if isinstance(value, str | int | float):
        return repr(value)[:80]
    return type(value).__name__.strip("_")


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
    "TUPLE": lambda m, _: m._stack.append(tuple(m._to_mark())),
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
