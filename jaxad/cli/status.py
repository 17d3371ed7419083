"""With what status a command ends."""

from __future__ import annotations

import signal
import sys

from jaxad.run import interruption
from jaxad.run.text import say

FAILED_PARTS = 1
"""Done, but for parts that were named (files, cells of a benchmark)."""
USER_ERROR = 2
"""A mistake that the user can mend; the last line says which."""
INTERRUPTED = 130
TERMINATED = 128 + signal.SIGTERM


def interrupted(consequence: str) -> int:
    """Says that a signal ended the command and what that means for the work; gives the status."""
    terminated = interruption.came() == signal.SIGTERM
    word = "terminated" if terminated else "interrupted"
    say(f"\njaxad: {word}; {consequence}", file=sys.stderr)
    return TERMINATED if terminated else INTERRUPTED
