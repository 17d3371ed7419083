"""Names and messages as text that does nothing where it is read: terminals, tables.

A file's name, or a key in a file of weights, may hold escape codes that move a terminal's cursor,
or begin like a spreadsheet's formula. Both are written so that the name can be told from the text.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

# C0 and C1 controls, marks that turn the direction of writing, separators of lines and paragraphs,
# bytes that are no Unicode (lone surrogates); and what would read like the escape of one.
_ESCAPED = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
    r"|\\(?=x[0-9a-f]{2}|u[0-9a-f]{4})"
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4}))")

# With the wide forms, which are the same to a spreadsheet in Chinese or Japanese; behind quotation
# marks, so that a name that begins with one comes back too.
_BEGINS = r"[=+\-@\uff1d\uff0b\uff0d\uff20\t\r\n]"
_FORMULA = re.compile(f"'*{_BEGINS}")
_QUOTED_FORMULA = re.compile(f"'+{_BEGINS}")


def printable(text: str | os.PathLike) -> str:
    r"""Text of one line that any terminal and any encoding of Unicode can take.

    Args:
      text: a path, a key, a message.

    Returns:
      The text with control characters as ``\u001b`` and bytes that are no Unicode as ``\xff``;
      all other text is as it was. :func:`from_printable` gives the original.
    """
    return _ESCAPED.sub(_escape, os.fspath(text))


def brief(name: str, most: int = 100) -> str:
    """A name in a message: printable, an empty one told, the middle of a long one left out."""
    shown = printable(name) or "(an empty name)"
    if len(shown) <= most:
        return shown
    half = most // 2
    return f"{shown[:half]}...{shown[-half:]} ({len(name)} characters)"


def from_printable(text: str) -> str:
    """What :func:`printable` was given."""
    return _ESCAPE.sub(
        lambda found: chr(0xDC00 + int(found[1], 16)) if found[1] else chr(int(found[2], 16)), text
    )


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    # How Python holds a byte of a file's name that is no Unicode.
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def counted(number: int, what: str, plural: str = "") -> str:
    """``1 image``, ``2 images``; the plural where it has no s at the end."""
    return f"{number} {what if number == 1 else plural or f'{what}s'}"


def say(text: Any, *, one_line: bool = False, file: Any = None) -> None:
    """Prints text, made :func:`printable`.

    Args:
      text: what to print.
      one_line: for messages that repeat what a user or a file says; otherwise lines stay lines.
      file: a stream of text; standard output by default.
    """
    lines = [str(text)] if one_line else str(text).split("\n")
    print("\n".join(map(printable, lines)), file=file or sys.stdout, flush=True)


def csv_cell(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula: a number as it is, a name behind a ``'``."""
    if not isinstance(value, str) or not _FORMULA.match(value) or _is_number(value):
        return value
    return f"'{value}"


def from_csv_cell(text: str) -> str:
    """What :func:`csv_cell` was given, as text."""
    return text[1:] if _QUOTED_FORMULA.match(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
