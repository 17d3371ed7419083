"""One of several processes ends with a sentence, however JAX or the system ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import os, signal, sys, time
from jaxad.run import guard, interruption
{before}interruption.listen()
guard.watch()
{body}
"""
DUMP = (
    "W1127 03:36:06.142446 17889 preemption_sync_manager.cc:147] Failed to retrieve\n"
    "Additional GRPC error information from remote target\n"
    "F1127 03:35:54.743152 17662 client.h:80] Terminating process because the JAX distributed "
    "service detected fatal errors.\n"
    "*** Check failure stack trace: ***\n"
    "    @     0x7fb8ba240634  absl::lts_20260107::log_internal::LogMessage::SendToLog()\n"
)
OTHER = "E1127 03:35:54.743152 17662 distributed/x.cc:1] something else\n"
SENTENCE = (
    "jaxad: another process of this run has ended, see what it said; the same commands go on from "
    "the last checkpoint\n"
)
ABORT = "os.kill(os.getpid(), signal.SIGABRT)"


@pytest.mark.parametrize(
    "body, status, printed",
    [
        ("print('own', file=sys.stderr); os.write(2, b'library\\n')", 0, "own\nlibrary\n"),
        ("sys.exit(3)", 3, ""),
        (f"os.write(2, {DUMP.encode()!r}); {ABORT}", 2, SENTENCE),
        # What it says of lost processes is shown only where it explains an end.
        (f"os.write(2, {DUMP.encode()!r})", 0, ""),
        (
            f"os.write(2, {OTHER.encode()!r}); {ABORT}",
            134,
            f"{OTHER}jaxad: the process was ended by SIGABRT; the same command goes on from its "
            "last checkpoint\n",
        ),
    ],
)
def test_how_a_process_ends(body, status, printed):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before="", body=body)],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    assert sorted(done.stderr.splitlines()) == sorted(printed.splitlines())
    assert done.returncode == status


SLOW_PARENT = """
fork = os.fork
def fork_slowly():
    child = fork()
    if child:
        time.sleep(1.0)
    return child
os.fork = fork_slowly
"""


@pytest.mark.parametrize("before", ["", SLOW_PARENT], ids=["", "before the parent listens"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on_once(number, before):
    body = """
try:
    print("ready", flush=True)
    time.sleep(100)
except KeyboardInterrupt:
    time.sleep(0.5)  # the group's own signal and the one that is passed on are one
    sys.exit(100 + int(interruption.came()))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(before=before, body=body)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, number)
    assert process.wait(60) == 100 + number


def test_the_child_does_not_outlive_its_parent():
    body = "print(os.getpid(), flush=True); time.sleep(100)"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(before="", body=body)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    child = int(process.stdout.readline())
    assert child != process.pid
    process.kill()
    process.wait(60)
    # Its standard output ends with it.
    process.stdout.read()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and _is_running(child):
        time.sleep(0.05)
    assert not _is_running(child)


def _is_running(number: int) -> bool:
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
