"""The command line. Heavy imports happen inside a command, so that help is instant."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
import threading
from collections.abc import Sequence

from jaxad.cli.arguments import parser
from jaxad.cli.status import USER_ERROR, interrupted
from jaxad.cli.unknown import unknown
from jaxad.run import interruption
from jaxad.run.environment import check_address_space
from jaxad.run.errors import UserError
from jaxad.run.text import say

SHORT_FORMS = {
    "exclude": "data.exclude",
    "threshold": "evaluate.image_threshold",
    "skip_unreadable": "evaluate.skip_unreadable",
}
"""Arguments that set a key of the config."""
MACHINE_REFUSES = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
)
_NO_MEMORY = (
    "there is not enough memory for this; less is needed with smaller batches "
    "(evaluate.batch_size, train.batch_size, or train.accumulate), a smaller data.image_size, and "
    "data.stream=True"
)
_DEVICE_IS_FULL = "RESOURCE_EXHAUSTED"
"""How XLA begins to say that a device, the processor too, has no more memory to give."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
      Exit status: 0 done, 1 done but for the parts that are named (files, cells), 2 a mistake that
      the user can mend, 130 interrupted, 143 terminated.
    """
    if argv is None:
        _hush_libraries()
        interruption.listen()
    try:
        return _run(argv)
    except BaseException:
        # Signals become other errors in libraries and in imports of theirs.
        if interruption.came() is None:
            raise
        return interrupted("the same command goes on where it stopped")


def _run(argv: Sequence[str] | None) -> int:
    try:
        # A shell leaves the ~ of --workdir=~/run alone.
        words = [_at_home(word) for word in (sys.argv[1:] if argv is None else argv)]
        if not words:
            parser().print_help()
            return 0
        arguments, rest = parser().parse_known_args(words)
        overrides = _overrides(rest, arguments)
        for flag, key in SHORT_FORMS.items():
            value = getattr(arguments, flag, None)
            if value is not None:
                overrides[key] = value
        if arguments.computes:
            check_address_space()
        return arguments.run(arguments, overrides) or 0
    except UserError as error:
        say(f"jaxad: {error}", one_line=True, file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        return interrupted("the same command goes on where it stopped")
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith(_DEVICE_IS_FULL):
            raise
        say(f"jaxad: {_NO_MEMORY}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:
        # The reader of a pipe has gone (`jaxad ... | head`): nothing is left to say to anyone.
        sys.stderr.close()
        return USER_ERROR
    except OSError as error:
        # What the machine refuses (a full disk, a missing right) is nobody's bug.
        if error.errno not in MACHINE_REFUSES:
            raise
        place = f"{error.filename}: " if error.filename else ""
        say(f"jaxad: {place}{error.strerror}", one_line=True, file=sys.stderr)
        return USER_ERROR


def _at_home(word: str) -> str:
    """``--option=~/x`` or ``~/x`` with the home folder in place of ``~``."""
    flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{flag}{equals}{os.path.expanduser(value)}" if value.startswith("~") else word


def _hush_libraries() -> None:
    """Keeps threads and coroutines of libraries from printing tracebacks of their own.

    When a disk fills up, dozens of them fail at once; the failure comes to :func:`main` as one
    exception, and that is what is reported.
    """
    default = sys.excepthook
    main_thread = threading.main_thread()

    def only_from_the_main_thread(*failure) -> None:
        if threading.current_thread() is main_thread:
            default(*failure)

    sys.excepthook = only_from_the_main_thread
    sys.unraisablehook = lambda _: None
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)


def _overrides(rest: Sequence[str], arguments: argparse.Namespace) -> dict[str, str]:
    """Reads ``--config.KEY=VALUE`` and ``--config.KEY VALUE``; other words go to ``--input``.

    Raises:
      UserError: an argument that is neither known nor an override.
    """
    # `--input=a b c` means three inputs, though argparse takes only the first for its own.
    more_inputs: list[str] | None = getattr(arguments, "input", None)
    overrides: dict[str, str] = {}
    words = iter(rest)
    for word in words:
        if more_inputs is not None and not word.startswith("-"):
            more_inputs.append(word)
            continue
        if not (arguments.takes_overrides and word.startswith("--config.")):
            raise unknown(word, arguments)
        key, equals, value = word.removeprefix("--config.").partition("=")
        following = value if equals else next(words, None)
        if following is None:
            raise UserError(f"{word} has no value; write {word}=VALUE")
        overrides[key] = following
    return overrides


if __name__ == "__main__":
    sys.exit(main())
