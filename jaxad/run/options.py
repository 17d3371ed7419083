"""Options stated once: type, default, meaning, allowed values, who reads them.

An option is a field of a frozen dataclass (:class:`Options`). Configs are filled from it, values
are checked against it, ``jaxad config NAME`` and the table of keys in the docs print it.
"""

from __future__ import annotations

import ast
import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, SupportsFloat

from jaxad.run.errors import UserError, did_you_mean


class Rule(NamedTuple):
    """What an option means and takes.

    Attributes:
      meaning: one line.
      choices: all allowed values; empty: any that the bounds allow.
      at_least: smallest allowed number; of a tuple, of each entry.
      above: the number that values must exceed.
      at_most: largest allowed number.
      below: the number that values must stay under.
      detection_only: only detection reads it, so that it may change after training.
    """

    meaning: str
    choices: tuple[str, ...] = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    detection_only: bool = False

    def allows(self, value: Any) -> bool:
        """Whether a value of the right type is allowed; numbers must be finite."""
        if isinstance(value, tuple):
            return all(map(self.allows, value))
        if self.choices:
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        return (
            math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def wanted(self) -> str:
        """The allowed values in words; empty where any value of the type is."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.at_least is not None and self.below is not None:
            return f"from {self.at_least:g} to below {self.below:g}"
        if self.at_least is not None and self.at_most is not None:
            return f"from {self.at_least:g} to {self.at_most:g}"
        if self.at_least == 0:
            return "0 or more"
        bounds = {
            "at least": self.at_least,
            "above": self.above,
            "at most": self.at_most,
            "below": self.below,
        }
        return " and ".join(f"{word} {at:g}" for word, at in bounds.items() if at is not None)


def option(default: Any, meaning: str, **rule: Any) -> Any:
    """A field of an :class:`Options` class.

    Args:
      default: also says the type: bool, int, float, str, a tuple of equal types, or a dict of
        numbers (a group that is open to any key).
      meaning: one line.
      **rule: the other attributes of :class:`Rule`.
    """
    metadata = {"rule": Rule(meaning, **rule)}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Options:
    """A group of options; values are converted to their type and checked when one is made.

    Raises:
      UserError: a value that its option does not take; names the key.
    """

    group: ClassVar[str] = ""
    """What stands before the name in a config's key: ``"train."``."""

    def __post_init__(self) -> None:
        """Converts and checks every value."""
        for field in dataclasses.fields(self):
            key, rule = self.group + field.name, field.metadata["rule"]
            value = converted(key, getattr(self, field.name), _default(field))
            entries = tuple(value.values()) if isinstance(value, Mapping) else value
            if not rule.allows(entries):
                wanted = rule.wanted() or "a finite number"
                raise UserError(f"the config key {key!r} must be {wanted}, not {value!r}")
            object.__setattr__(self, field.name, value)

    def __getitem__(self, name: str) -> Any:
        """The value of an option by its name."""
        return getattr(self, name)

    @classmethod
    def of(cls, values: Mapping[str, Any], *, what: str = "") -> Any:
        """Options from values by name; what is not named has its default.

        Args:
          values: name -> value.
          what: what an error says has no such option; the group's name if empty.

        Raises:
          UserError: an unknown name, or a value that its option does not take.
        """
        known = cls.rules()
        for name in values:
            if name not in known:
                owner = what or f"the group {cls.group.rstrip('.')!r}"
                raise UserError(f"{owner} has no option {name!r}" + did_you_mean(name, known))
        return cls(**values)

    @classmethod
    def rules(cls) -> dict[str, Rule]:
        """Name -> what it means and takes, in their order."""
        return {field.name: field.metadata["rule"] for field in dataclasses.fields(cls)}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Name -> default, in their order."""
        return {field.name: _default(field) for field in dataclasses.fields(cls)}

    @classmethod
    def detection_only(cls) -> tuple[str, ...]:
        """Names of the options that only detection reads."""
        return tuple(name for name, rule in cls.rules().items() if rule.detection_only)


def _default(field: dataclasses.Field) -> Any:
    factory = field.default_factory
    return field.default if factory is dataclasses.MISSING else factory()


def converted(key: str, value: Any, default: Any, kind: type | None = None) -> Any:
    """A value, often text from a command line, in the type of a key.

    Args:
      key: named in errors.
      value: of the type, or text of it; a whole number does where a number is wanted, and one
        number where two equal ones are.
      default: of the key.
      kind: type of the key where the default is None.

    Raises:
      UserError: the value does not fit.
    """
    kind = kind or type(default)
    if isinstance(value, os.PathLike) and kind is str:
        return os.fspath(value)
    if isinstance(value, str) and kind is not str:
        try:
            value = ast.literal_eval({"true": "True", "false": "False"}.get(value.lower(), value))
        except (ValueError, SyntaxError):
            raise _wrong_type(key, value, kind, default) from None
    if value is None and default is None:
        return None
    if kind is dict and isinstance(value, Mapping):
        return {name: converted(f"{key}.{name}", number, 1.0) for name, number in value.items()}
    if isinstance(value, SupportsFloat) and not isinstance(value, bool):
        if kind is float:
            return float(value)
        if kind is int and float(value).is_integer():
            return int(value)  # type: ignore[call-overload]  # whatever is a number and whole
    if kind is tuple and isinstance(value, list | tuple | int):
        value = (value, value) if isinstance(value, int) else tuple(value)
        if default and len(default) != len(value):
            raise UserError(f"the config key {key!r} takes {len(default)} numbers, not {value!r}")
        if default and type(default[0]) is float:
            value = tuple(float(v) if type(v) is int else v for v in value)
        if default and any(type(v) is not type(default[0]) for v in value):
            raise _wrong_type(key, value, kind, default)
        return value
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise _wrong_type(key, value, kind, default)
    return value


def _wrong_type(key: str, value: Any, kind: type, default: Any) -> UserError:
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}
    wanted = names.get(kind) or f"numbers such as {','.join(map(str, default or (128, 128)))}"
    return UserError(f"the config key {key!r} takes {wanted}, not {value!r}")
