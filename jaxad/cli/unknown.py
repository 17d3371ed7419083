"""What was meant by an argument that a command does not take."""

from __future__ import annotations

import argparse
import shlex

from jaxad.run.errors import UserError, meant, nearest


def unknown(word: str, arguments: argparse.Namespace) -> UserError:
    """The error for an argument.

    Args:
      word: the argument.
      arguments: of the command, with its ``options`` and whether it ``takes_overrides``.
    """
    return UserError(f"unknown argument {word!r}{_hint(word, arguments)}; see --help")


def _hint(word: str, arguments: argparse.Namespace) -> str:
    if not word.startswith("-"):
        if getattr(arguments, "root", None) == "":
            return meant([f"--root={shlex.quote(word)}"])
        return "; a path that holds spaces stands in quotation marks"
    name = word.lstrip("-").partition("=")[0]
    keys = [f"--config.{key}" for key in _keys()] if arguments.takes_overrides else []
    whole = [key for key in keys if key.endswith(f".{name}")]
    near = whole or nearest(f"--{name}", [*arguments.options, *keys])
    return meant(near) if near else ""


def _keys() -> list[str]:
    """The keys that every config has."""
    from jaxad.run.config import flatten
    from jaxad.run.settings import ModelChoice, Settings

    return list(flatten(Settings(model=ModelChoice("pca", {}))))
