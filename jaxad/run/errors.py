"""The one exception that means "the user can mend this", and how it names the mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """Bad input from a user: one clear sentence that says what, where and what to do.

    The command line prints the sentence without a traceback and exits with status 2; code
    that uses jaxad as a library may catch it like any exception.
    """


_MOST_JOINED = 100
"""Sentences that one error holds."""


def joined(sentences: Sequence[str]) -> str:
    """Sentences of one kind as one; of more than a hundred the first, and how many more."""
    more = len(sentences) - _MOST_JOINED
    return "; ".join(sentences[:_MOST_JOINED]) + (f"; and {more} more" if more > 0 else "")


_NEAR = 0.6
"""How alike two names must be, from 0 to 1: "l3" is not taken for "l1", but answered by a list."""
_AS_NEAR = 0.02
"""Names that are less alike by no more than this are named too: which one is meant is not known."""
_MOST_MEANT, _MOST_KNOWN = 3, 30


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns a clause that lists the nearest known names, to end an error sentence with.

    Args:
      name: what the user wrote.
      known: every name that would have been accepted.

    Returns:
      ``"; did you mean 'a'?"``, or ``'a' or 'b'`` where several are as near; where none is, or
      many are (numbered files), ``"; known: a, b, c"``, a few dozen at most.
    """
    known = sorted(known)
    near = nearest(name, known)
    if near:
        return meant(near)
    more = f" and {len(known) - _MOST_KNOWN} more" if len(known) > _MOST_KNOWN else ""
    return "; known: " + ", ".join(known[:_MOST_KNOWN]) + more if known else ""


def meant(names: Sequence[str]) -> str:
    """``"; did you mean 'a' or 'b'?"``."""
    return f"; did you mean {' or '.join(map(repr, names))}?"


def nearest(name: str, known: Sequence[str]) -> list[str]:
    """The known names most like another one, upper case aside; none where many are as near."""
    alike = {
        other: difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio() for other in known
    }
    best = max(alike.values(), default=0.0)
    near = [other for other, ratio in alike.items() if ratio >= max(_NEAR, best - _AS_NEAR)]
    return near if len(near) <= _MOST_MEANT else []
