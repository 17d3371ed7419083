"""Pages of the documentation: their commands and blocks of Python."""

from __future__ import annotations

import pathlib
import re
import shlex
import string

import pytest

from jaxad.cli.arguments import parser
from jaxad.cli.main import _overrides
from jaxad.data.synthetic.dataset import ensure_dataset
from jaxad.run.config import load_settings

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, *languages: str) -> list[str]:
    """Code blocks of a page in some languages ("" for a block that names none)."""
    return [body for language, body in FENCE.findall(page) if language in languages]


def commands(page: str) -> list[list[str]]:
    """The words of every command `jaxad ...` in the blocks of a page, variables replaced."""
    variables: dict[str, str] = {}
    found = []
    for block in blocks(page, "", "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if not re.match(r"jaxad |[A-Z]+=", line):
                continue
            words = shlex.split(string.Template(line).safe_substitute(variables), comments=True)
            if len(words) == 1 and re.fullmatch(r"[A-Z]+=\S+", words[0]):
                name, _, value = words[0].partition("=")
                variables[name] = value
            elif words[:1] == ["jaxad"] and len(words) > 1 and "..." not in words:
                found.append(words[1:])
    return found


def understand(words: list[str]) -> None:
    """Parses a command as the command line does, and loads its config with the overrides."""
    if words == ["--help"]:
        return
    arguments, rest = parser().parse_known_args(words)
    overrides = _overrides(rest, arguments)
    names = [getattr(arguments, "config", None), *getattr(arguments, "configs", [])]
    for name in filter(None, names):
        load_settings(name, overrides if name == names[0] else {})


@pytest.fixture(scope="session")
def reading():
    """The functions above: ``reading.commands(page)`` ..."""
    return type(
        "Reading", (), {f.__name__: staticmethod(f) for f in (blocks, commands, understand)}
    )


@pytest.fixture
def parts(tmp_path, monkeypatch) -> pathlib.Path:
    """A working directory with a small folder `parts/flange`, as the tutorial draws it."""
    monkeypatch.chdir(tmp_path)
    drawn = ensure_dataset(".", image_size=(32, 32), train=20, test_good=3, test_per_defect=1)
    drawn.rename("parts")
    return tmp_path
