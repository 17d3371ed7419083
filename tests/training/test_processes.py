"""Two processes of two devices each are one process of four: the same run, and one end."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import jaxad
from jaxad.cli import main as cli
from jaxad.data.pipeline import training_batches
from jaxad.run.errors import UserError
from jaxad.run.files import read_csv
from jaxad.run.folder import RunFolder
from jaxad.training import processes
from jaxad.training.parallel import Devices

STEPS = {"train.steps": "3", "train.log_every": "1", "train.checkpoint_every": "1"}
OPTIONS = STEPS | {"train.batch_size": "8", "train.devices": "0", "data.stream": "True"}
PROGRAM = """
import sys, jax
jax.config.update("jax_num_cpu_devices", 2)
import toy_model
from jaxad.models import ARCHITECTURES
ARCHITECTURES['toy'] = toy_model.TOY
import jaxad.cli.main
sys.exit(jaxad.cli.main.main(sys.argv[1:]))
"""


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def start_two(*commands: list[str]) -> list[subprocess.CompletedProcess]:
    """Runs a command in two processes, or two commands."""
    here = os.pathsep.join([str(pathlib.Path(__file__).parents[1]), os.getcwd()])
    address = f"--coordinator=127.0.0.1:{free_port()}"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *command, address, "--processes=2", f"--process={i}"],
            env=os.environ | {"PYTHONPATH": here},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, command in enumerate(commands * 2 if len(commands) == 1 else commands)
    ]
    try:
        said = [process.communicate(timeout=150) for process in running]
    finally:
        for process in running:
            process.kill()
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *texts)
        for process, texts in zip(running, said, strict=True)
    ]


GLOO = re.compile(
    r"(\[Gloo\]|Rank|is|connected|to|peer|ranks?\.?|Expected|number|of|:|\d+|\s)*", re.IGNORECASE
)
"""Lines of the library of collectives; its threads break them anywhere, into single numbers too."""


def own_words(done: subprocess.CompletedProcess) -> list[str]:
    """What jaxad printed."""
    lines = (done.stderr + "\n" + done.stdout).splitlines()
    return [line for line in lines if not GLOO.fullmatch(line)]


@pytest.fixture(scope="module")
def data(tiny_data, tmp_path_factory):
    return pathlib.Path(shutil.copytree(tiny_data, tmp_path_factory.mktemp("data") / "stripes"))


@pytest.fixture(scope="module")
def command(toy_config, tiny, data):
    keys = {k: v for k, v in tiny.items() if not k.startswith("model.")} | OPTIONS
    keys |= {"data.root": str(data)}
    words = [f"--config.{key}={value}" for key, value in keys.items()]
    return lambda run, *more: ["train", f"--config={toy_config}", f"--workdir={run}", *words, *more]


@pytest.fixture(scope="module")
def alone(command, tmp_path_factory) -> RunFolder:
    """One process of four devices."""
    run = tmp_path_factory.mktemp("alone") / "run"
    assert cli.main(command(run)) == 0
    return RunFolder(run)


def image_of(step: int, place: int, run: RunFolder, data: pathlib.Path) -> pathlib.Path:
    """The image that a step takes at a place of its batch."""
    names = json.loads(run.data.read_text())["training"]
    numbers = np.arange(len(names), dtype=np.uint8)[:, None, None, None]
    batches = training_batches(numbers, batch_size=8, seed=0, pipeline="memory")
    batch = next(itertools.islice(batches, step - 1, None))
    batches.close()
    return data / names[batch.index[place]]


def test_two_processes_fail_together_go_on_and_learn_the_same(
    command, alone, data, tmp_path, checkpoint_of
):
    damaged = image_of(2, 7, alone, data)  # the first epoch shows it once
    run = RunFolder(tmp_path / "run")
    content = damaged.read_bytes()
    # Of the same size: a stream knows its files by their sizes, and would not take another one.
    damaged.write_bytes(content[:30] + bytes(len(content) - 30))
    first, second = start_two(command(run.path))
    damaged.write_bytes(content)
    assert (first.returncode, second.returncode) == (2, 2), first.stderr + second.stderr
    sentence = f"{damaged} is not an image in a format that is read"
    assert own_words(second) == [f"jaxad: {sentence}"]
    assert own_words(first)[-1] == f"jaxad: process 1: {sentence}"
    assert [p.name for p in run.checkpoints.iterdir()] == ["1"]

    first, second = start_two(command(run.path))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "going on from step 1 of 3" in first.stderr and "next: jaxad evaluate" in first.stdout
    assert own_words(second) == []
    assert json.loads(run.environment.read_text())["processes"] == 2
    recorded, expected = (json.loads(one.data.read_text()) for one in (run, alone))
    # Each process decodes its own rows; the first one writes down what it saw.
    seen, all_seen = recorded.pop("pixels"), expected.pop("pixels")
    assert len(all_seen) > len(seen) > 2
    assert seen.items() <= all_seen.items()
    for one in (recorded, expected):
        one.pop("content_sha256")
    assert recorded == expected
    # float32 sums in another order, carried on through three steps of Adam.
    pairs = zip(read_csv(run.history), read_csv(alone.history), strict=True)
    for mine, other in pairs:
        assert mine.keys() == other.keys()
        for name in mine:
            np.testing.assert_allclose(float(mine[name]), float(other[name]), rtol=2e-3, atol=1e-6)
    leaves = [jax.tree.leaves(checkpoint_of(each, 3)) for each in (run, alone)]
    for mine, other in zip(*leaves, strict=True):
        np.testing.assert_allclose(mine, other, rtol=2e-3, atol=1e-5)
    evaluated = jaxad.evaluate(run.path)
    assert evaluated["checkpoint"] == 3 and "l2" in evaluated["maps"]


def start_guarded(command: list[str], places: list[pathlib.Path]) -> list[subprocess.Popen]:
    """Two processes that are commands of their own, as a shell starts them; they print to files."""
    here = os.pathsep.join([str(pathlib.Path(__file__).parents[1]), os.getcwd()])
    address = f"--coordinator=127.0.0.1:{free_port()}"
    program = PROGRAM.replace("main.main(sys.argv[1:])", "main.main()")
    return [
        subprocess.Popen(
            [sys.executable, "-c", program, *command, address, "--processes=2", f"--process={i}"],
            env=os.environ | {"PYTHONPATH": here},
            stdout=subprocess.DEVNULL,
            stderr=place.open("w"),
        )
        for i, place in enumerate(places)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "signalled, number, statuses",
    [(1, signal.SIGTERM, (143, 143)), (0, signal.SIGKILL, (-9, 2)), (1, signal.SIGKILL, (2, -9))],
)
def test_a_signal_to_one_of_two_ends_both_with_a_sentence(
    signalled, number, statuses, command, tmp_path
):
    """JAX swallows a SIGTERM, and aborts with a dump of its stack when the first process dies."""
    run = RunFolder(tmp_path / "run")
    places = [tmp_path / "0.txt", tmp_path / "1.txt"]
    longer = ["--config.train.steps=3000", "--config.train.checkpoint_every=1000"]
    processes_of_run = start_guarded(command(run.path, *longer), places)
    try:
        while len(read_csv(run.history)) < 3:
            assert all(process.poll() is None for process in processes_of_run), places[
                0
            ].read_text()
            time.sleep(0.05)
        processes_of_run[signalled].send_signal(number)
        found = tuple(process.wait(150) for process in processes_of_run)
    finally:
        for process in processes_of_run:
            process.kill()
    said = [place.read_text() for place in places]
    assert found == statuses, said
    assert not any("Traceback" in text or "stack trace" in text for text in said), said
    if number == signal.SIGTERM:
        assert all("jaxad: terminated; the same command goes on" in text for text in said)
        (step,) = (int(folder.name) for folder in run.checkpoints.iterdir())
        assert step == int(read_csv(run.history)[-1]["step"]) < 1000
    else:
        assert "jaxad: another process of this run has ended" in said[1 - signalled]


def test_other_data_or_a_batch_that_does_not_divide_end_both(command, data, tmp_path):
    other = shutil.copytree(data, tmp_path / "stripes")
    commands = [command(tmp_path / "run"), command(tmp_path / "run")]
    commands[1].append(f"--config.data.root={other}")
    done = start_two(*commands)
    assert [each.returncode for each in done] == [2, 2]
    for each in done:
        assert "jaxad: process 1 has settings that differ" in own_words(each)[-1]


def test_only_training_is_for_several_processes(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match=r"only training runs in several processes \(here 2\)"):
        Devices()


def test_processes_with_other_numbers_of_devices(monkeypatch):
    local = jax.local_devices()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    numbers = lambda process_index=0: local[: 4 - process_index]
    monkeypatch.setattr(jax, "local_devices", numbers)
    with pytest.raises(UserError, match=r"have 4, 3 devices; set train\.devices"):
        Devices(several_processes=True)
    assert len(Devices(3, several_processes=True)) == 6


def test_rows_of_each_process():
    devices = Devices(2)
    assert devices.local_rows(8) == slice(0, 8)
    devices._all = [object(), object(), *devices.devices, object(), object()]
    assert devices.local_rows(12) == slice(4, 8)


@pytest.mark.parametrize(
    "numbers", [("", 2, 0), ("host:1", 0, 0), ("host:1", 2, 2), ("host:1", 2, -1)]
)
def test_numbers_that_contradict_each_other(numbers):
    with pytest.raises(UserError, match="need all of --coordinator"):
        processes.start(*numbers)


def test_a_cluster_that_cannot_be_recognised(monkeypatch):
    def initialize(**options):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(UserError, match=r"did not come together .*--coordinator"):
        processes.start()


def test_one_process_waits_for_nobody():
    errors = processes.DeferredErrors()
    with pytest.raises(UserError, match="at once"), errors.deferring():
        raise UserError("at once")
    assert [errors.barrier(), errors.barrier(True)] == [False, True]
    tree = {"a": np.arange(3)}
    assert processes.broadcast_from_first(tree) is tree
    assert processes.on_all(lambda: 5) == 5
    processes.check_same(anything="is the same")


def test_a_flag_of_one_process_is_known_to_all(monkeypatch):
    brought: list[bytes] = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "_all_gather", lambda text: [text, brought[0]])
    errors = processes.DeferredErrors()
    for mine, other, either in ((False, b" ", False), (True, b" ", True), (False, b"!", True)):
        brought[:] = [other]
        assert errors.barrier(mine) is either
    brought[:] = [b"!the disk is full"]
    with pytest.raises(UserError, match="process 1: the disk is full"):
        errors.barrier()


@pytest.mark.parametrize(
    "failure, raised, status",
    [
        (jax.errors.JaxRuntimeError("Gloo AllGather failed: Connection closed"), UserError, 2),
        (ValueError("UNKNOWN: Gloo AllGather failed: Connection reset by peer"), UserError, 2),
        (ValueError("shapes do not fit"), ValueError, 1),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED"), jax.errors.JaxRuntimeError, 1),
        (KeyboardInterrupt(), KeyboardInterrupt, 130),
        (processes.EndedTogether(), processes.EndedTogether, None),
        (ZeroDivisionError(), ZeroDivisionError, 1),
        (UserError("passed on at a barrier"), UserError, None),
    ],
)
@pytest.mark.parametrize("number", [1, 2])
def test_a_process_does_not_wait_for_those_it_has_lost(
    failure, raised, status, number, monkeypatch
):
    left, leaving = [], []
    monkeypatch.setattr(jax, "process_count", lambda: number)
    monkeypatch.setattr(processes.atexit, "register", leaving.append)
    monkeypatch.setattr(processes.os, "_exit", left.append)
    monkeypatch.setattr(processes, "_SECONDS_TO_LEAVE", 1e6)  # never, in this process
    expected = raised if number > 1 else type(failure)
    with pytest.raises(expected) as caught, processes.abort_on_failure():
        raise failure
    assert type(caught.value) is expected
    for leave in leaving:
        leave()
    assert left == ([status] if number > 1 and status is not None else [])
