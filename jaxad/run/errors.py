"""The one exception that means "the user can mend this", and how it names the mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input from a user: one clear sentence that says what, where and what to do.

    The command line prints the sentence without a traceback and exits with status 2; code
    that uses jaxad as a library may catch it like any exception.
    """


_NEAR = 0.6
"""How alike two names must be, from 0 to 1: "l3" is not taken for "l1", but answered by a list."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns a clause that lists the nearest known names, to end an error sentence with.

    Args:
      name: what the user wrote.
      known: every name that would have been accepted.

    Returns:
      ``"; did you mean 'a'?"`` when something is near, else ``"; known: a, b, c"``.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
    if near:
        return f"; did you mean {near[0]!r}?"
    return "; known: " + ", ".join(known) if known else ""
