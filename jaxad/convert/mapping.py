"""Carries a state dict over by a table: every key has a place and every place has a key.

What is left over or missing is never guessed at: one error says what the file looks like, or names
the first of these keys and how many there are.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from jaxad.convert.families import FAMILIES, Entry, Family, family as family_of
from jaxad.convert.kinds import kind_of
from jaxad.run.errors import UserError
from jaxad.run.text import brief

SHOWN = 5
"""Keys that an error names before it only counts."""


@runtime_checkable
class Source(Protocol):
    """A tensor of a file, read when asked for."""

    shape: tuple[int, ...]

    def read(self) -> np.ndarray:
        """Its values."""


class Plan(NamedTuple):
    """Which tensor of a file goes where.

    Attributes:
      state: the tensors, under the table's names.
      entries: the table, every block written out.
      dropped: keys that are left out -> why.
      absent: optional submodules that the file lacks -> what that means.
      blocks: submodule -> number of its blocks.
    """

    state: dict[str, Source]
    entries: list[Entry]
    dropped: dict[str, str]
    absent: dict[str, str]
    blocks: dict[str, int]


class Mapped(NamedTuple):
    """What a plan makes of a file.

    Attributes:
      leaves: Flax path -> float32 array.
      dropped: as in :class:`Plan`.
      absent: likewise.
      blocks: likewise.
      stored_as: dtypes of the file's numbers.
    """

    leaves: dict[str, np.ndarray]
    dropped: dict[str, str]
    absent: dict[str, str]
    blocks: dict[str, int]
    stored_as: list[str]


def plan_mapping(state: Mapping[str, Source], family: Family, *, source: str) -> Plan:
    """Finds a place for every key and a key for every place, without reading a number.

    Args:
      state: key -> tensor.
      family: the table.
      source: the file's name, for messages.

    Raises:
      UserError: keys are left over or missing, or the file is of a kind that does not serve.
    """
    state = _with_the_tables_names(state, family, source)
    for refusal in family.refusals:
        if refusal.key in state and refusal.without not in state:
            raise UserError(f"{source} does not serve: {refusal.reason}")
    plan, left, missing = _place(state, family)
    if left or missing:
        raise UserError(_mismatch(source, family, state, left, missing))
    return plan


def _place(state: dict[str, Source], family: Family) -> tuple[Plan, set[str], set[str]]:
    """The plan, the keys that have no place in it, and those that it misses."""
    entries, blocks = _expand(family.entries, state)
    entries, absent = _without_optional(entries, family, state)
    wanted = {key for entry in entries for key in entry.sources}
    dropped = {
        key: reason
        for key in sorted(set(state) - wanted)
        for pattern, reason in family.dropped.items()
        if fnmatch.fnmatchcase(key, pattern)
    }
    blocks = {module: n for module, n in blocks.items() if module not in absent}
    plan = Plan(state, entries, dropped, absent, blocks)
    return plan, set(state) - wanted - set(dropped), wanted - set(state)


def map_weights(state: Mapping[str, Source], family: Family, *, source: str) -> Mapped:
    """Brings a PyTorch state dict into Flax's names and layouts.

    Args:
      state: key -> tensor.
      family: the table.
      source: the file's name, for messages.

    Raises:
      UserError: as :func:`plan_mapping`; or values are of no use.
    """
    plan = plan_mapping(state, family, source=source)
    leaves, stored_as = {}, set()
    for entry in plan.entries:
        arrays = [_values(plan.state[key], key, entry, source) for key in entry.sources]
        stored_as |= {str(array.dtype) for array in arrays}
        try:
            array = entry.rule.to_flax(*arrays)
        except ValueError:
            shapes = ", ".join(f"{key} {plan.state[key].shape}" for key in entry.sources)
            raise UserError(f"{source}: these do not fit together: {shapes}") from None
        leaves[entry.path] = np.ascontiguousarray(array, dtype=np.float32)
    return Mapped(leaves, plan.dropped, plan.absent, plan.blocks, sorted(stored_as))


def _with_the_tables_names(
    state: Mapping[str, Source], family: Family, source: str
) -> dict[str, Source]:
    renamed: dict[str, Source] = {}
    for key, value in state.items():
        name = _own_name(key, family)
        if name in renamed:
            raise UserError(f"{source} holds {name} twice, once as {brief(key)}")
        renamed[name] = value
    return renamed


def _own_name(key: str, family: Family) -> str:
    """A key as the family's table spells it."""
    for other, own in family.aliases:
        if key.startswith(other):
            key = own + key.removeprefix(other)
    return key


def _expand(entries: Sequence[Entry], state: Iterable[str]) -> tuple[list[Entry], dict[str, int]]:
    """Writes ``{i}`` out for as many blocks as the file has."""
    blocks: dict[str, int] = {}
    for prefix, module in {
        (entry.sources[0].partition("{i}")[0], entry.path.split("/")[1])
        for entry in entries
        if "{i}" in entry.path
    }:
        number = re.compile(re.escape(prefix) + r"(\d+)\.")
        found = {match[1] for key in state if (match := number.match(key))}
        # A file without any block is told which keys of the first it lacks.
        blocks[module] = max(1, len(found))
    expanded = []
    for entry in entries:
        if "{i}" not in entry.path:
            expanded.append(entry)
            continue
        for i in range(blocks[entry.path.split("/")[1]]):
            sources = tuple(key.replace("{i}", str(i)) for key in entry.sources)
            expanded.append(Entry(sources, entry.path.replace("{i}", str(i)), entry.rule))
    return expanded, blocks


def _without_optional(
    entries: list[Entry], family: Family, state: Mapping[str, Source]
) -> tuple[list[Entry], dict[str, str]]:
    """Leaves out a submodule, or a part of one, of which the file has not one key."""
    absent = {}
    for module, meaning in family.optional.items():
        inside = f"params/{module}"
        own = [entry for entry in entries if (entry.path + "/").startswith(inside + "/")]
        if not any(key in state for entry in own for key in entry.sources):
            absent[module] = meaning
            entries = [entry for entry in entries if entry not in own]
    return entries, absent


def _values(tensor: Source, key: str, entry: Entry, source: str) -> np.ndarray:
    if len(tensor.shape) != entry.rule.rank:
        raise UserError(
            f"{source}: {key} has the shape {tuple(tensor.shape)}; it should have "
            f"{entry.rule.rank} dimensions"
        )
    array = tensor.read()
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise UserError(f"{source}: {key} holds {array.dtype}, not real numbers")
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is refused
        finite = np.isfinite(array.astype(np.float32, copy=False)).all()
    if not finite:
        raise UserError(f"{source}: {key} holds values that are not finite")
    return array


def _mismatch(
    source: str, family: Family, state: Mapping[str, Source], left: set[str], missing: set[str]
) -> str:
    text = f"{source} is not what --from={family.name} expects"
    kind = kind_of(left)  # by what this family's own files do not have
    likely = _likely(family, state, kind)
    if kind:
        text += f": it looks like {kind}"
    if likely:
        text += f"; did you mean --from={likely}?"
    elif kind:
        text += ", which no --from reads"
    if not kind:
        text += f"; keys that have no place: {listing(left)}" if left else ""
        text += f"; keys that are missing: {listing(missing)}" if missing else ""
    return text + ". Nothing was written"


def _likely(family: Family, state: Mapping[str, Source], kind: str) -> str:
    """The family that a file fits wholly, else, where its kind is not known, fits better."""
    others = [family_of(name) for name in FAMILIES if name != family.name]
    for other in others:
        renamed = {_own_name(key, other): value for key, value in state.items()}
        if not any(_place(renamed, other)[1:]):
            return other.name
    best = max(others, key=lambda other: _share(other, state))
    return best.name if not kind and _share(best, state) > _share(family, state) else ""


def _share(family: Family, state: Mapping[str, Source]) -> float:
    """How much of a table a file has: of the encoder's keys outside the blocks."""
    keys = {_own_name(key, family) for key in state}
    wanted = [
        key
        for entry in family.entries
        for key in entry.sources
        if "{i}" not in key and entry.path.split("/")[1] == "encoder"
    ]
    return sum(key in keys for key in wanted) / len(wanted)


def listing(names: Iterable[str]) -> str:
    """Names in order, a long list shortened with a count."""
    names = sorted(names)
    shown = ", ".join(map(brief, names[:SHOWN]))
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
