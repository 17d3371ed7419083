"""Runs jaxad commands in forks of a process that has imported everything: a try takes a second.

The process reads requests from its standard input, one JSON object a line, and answers with two
lines: the fork's number as soon as there is one, and how it ended. `Zygote` is the other end.

A request may name a moment: the fork sends itself a signal when it is about to change its folder
for the n-th time (opening a file to write, renaming, removing, making a folder).
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import pathlib
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
import warnings
from dataclasses import dataclass

PROJECT = pathlib.Path(__file__).resolve().parents[2]
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.move")


@dataclass
class Ended:
    """How a command ended.

    Attributes:
      status: as `subprocess` gives it, negative for a signal.
      text: all that it printed.
      seconds: that it took.
      mebibytes: of memory at most.
      changes: how often it was about to change its folder.
    """

    status: int
    text: str
    seconds: float
    mebibytes: float
    changes: int

    @property
    def has_traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.text


class Zygote:
    """The process, to be asked by one thread at a time."""

    def __init__(self, scratch: pathlib.Path, **more: str):
        """Starts it.

        Args:
          scratch: folder for what it prints; that beside it has compiled programs.
          more: variables of its environment.
        """
        scratch.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "tests")]),
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(scratch.parent / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            **more,
        }
        self._log = scratch / "printed.txt"
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(scratch / "zygote.txt").open("w"),
            text=True,
            env=environment,
        )

    def run(
        self,
        words: list[str],
        folder: pathlib.Path,
        *,
        signal_number: int = 0,
        after_seconds: float | None = None,
        at_change: int = 0,
        limit: float = 900.0,
        **environment: str,
    ) -> Ended:
        """Runs a command in a folder, and sends it a signal.

        Args:
          words: of the command, after ``jaxad``.
          folder: where it runs.
          signal_number: of the signal; 0 for none.
          after_seconds: when it is sent.
          at_change: or before which change of the folder.
          limit: seconds after which the command is killed, which counts as an error.
          environment: variables for it.
        """
        request = {
            "words": words,
            "folder": str(folder),
            "log": str(self._log),
            "signal": signal_number,
            "at_change": at_change,
            "environment": {"JAXAD_CACHE": str(folder / "cache"), **environment},
        }
        assert self._process.stdin and self._process.stdout
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"the zygote has ended: {self._log.with_name('zygote.txt')}")
        number, begun = int(answer), time.monotonic()
        timers = [threading.Timer(limit, _kill, [number, signal.SIGKILL])]
        if after_seconds is not None:
            timers.append(threading.Timer(after_seconds, _kill, [number, signal_number]))
        for timer in timers:
            timer.start()
        status, kibibytes, changes = json.loads(self._process.stdout.readline())
        for timer in timers:
            timer.cancel()
        text = self._log.read_text(errors="replace")
        return Ended(status, text, time.monotonic() - begun, kibibytes / 1024, changes)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def _kill(number: int, signal_number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(number, signal_number)


def _import_everything() -> None:
    from toy_model import TOY

    from jaxad.models import ARCHITECTURES

    ARCHITECTURES["toy"] = TOY


def _become_command(request: dict, counted: mmap.mmap) -> None:
    """In the fork: everything as if the command had been started from a shell."""
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = ["jaxad", *request["words"]]
    sys.addaudithook(_counting(request, counted))


def _counting(request: dict, counted: mmap.mmap):
    folder = os.path.realpath(request["folder"])
    lock = threading.Lock()

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not writes or not isinstance(path, str | os.PathLike):
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        if not isinstance(path, str | os.PathLike):
            return
        if not os.path.abspath(os.fspath(path)).startswith(folder):
            return
        with lock:
            (number,) = struct.unpack("q", counted[:8])
            counted[:8] = struct.pack("q", number + 1)
        if number + 1 == request["at_change"]:
            os.kill(os.getpid(), request["signal"])

    return hook


def main() -> None:
    _import_everything()
    from jaxad.cli.main import main as jaxad

    warnings.filterwarnings("ignore", message="os.fork")
    warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
    counted = mmap.mmap(-1, 8)
    for line in sys.stdin:
        request = json.loads(line)
        counted[:8] = struct.pack("q", 0)
        number = os.fork()
        if number == 0:
            try:
                _become_command(request, counted)
                status = jaxad()
            except SystemExit as error:
                status = error.code
            except BaseException:
                traceback.print_exc()
                status = 70
            # Behind the loop, so that the interpreter ends as it does behind a command.
            sys.exit(status)
        print(number, flush=True)
        _, status, usage = os.wait4(number, 0)
        code = os.waitstatus_to_exitcode(status)
        (changes,) = struct.unpack("q", counted[:8])
        print(json.dumps([code, usage.ru_maxrss, changes]), flush=True)


if __name__ == "__main__":
    main()
