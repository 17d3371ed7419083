"""``jaxad train``: trains, and says what comes next."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from jaxad.cli.status import interrupted
from jaxad.cli.threshold import kept
from jaxad.run.text import say

if TYPE_CHECKING:
    from jaxad.run.folder import RunFolder
    from jaxad.run.settings import Settings


def run(arguments: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Trains, and says what comes next."""
    from jaxad.run import guard
    from jaxad.run.config import load_settings
    from jaxad.run.environment import keep_freed_memory
    from jaxad.run.folder import RunFolder

    numbers = (arguments.coordinator, arguments.processes, arguments.process)
    several = arguments.distributed or numbers != ("", 0, -1)
    if several:
        guard.watch()
    keep_freed_memory()  # before anything starts threads
    from jaxad.evaluation.primary import check_primary_of
    from jaxad.evaluation.protocols.rules import get_protocol
    from jaxad.training import processes
    from jaxad.training.train import train

    config = load_settings(arguments.config, overrides)
    if not config.data.root and config.data.name in ("auto", "synthetic"):
        say("data.root is empty, so the images are generated ones; train on yours with "
            "--config.data.root=DIR", file=sys.stderr)  # fmt: skip
    get_protocol(config.evaluate.protocol)  # an unknown one is told now, not after training
    if several:
        processes.start(*numbers)
    if any(key.startswith("evaluate.primary_") for key in overrides):
        check_primary_of(config)
    try:
        run = train(config, arguments.workdir)
    except KeyboardInterrupt:
        return interrupted(_goes_on(RunFolder(arguments.workdir)))
    if processes.is_first():
        _keep_judgement(run, overrides)
        say(f"next: {_after_training(run, config)}")
    return 0


def _goes_on(run: RunFolder) -> str:
    """What an interrupted training has left."""
    step = run.last_step()
    if step is None:
        return "nothing was saved yet, the same command begins again"
    return f"the same command goes on from step {step}, its last checkpoint"


def _keep_judgement(run: RunFolder, overrides: Mapping[str, str]) -> None:
    """Lets a run that was trained before have the keys of its judgement that were asked for."""
    from jaxad.data.region_mask import keep_region_mask
    from jaxad.evaluation.open_keys import override_detection, stays_open
    from jaxad.run.coarse import keep_coarse
    from jaxad.run.config import flatten

    before = run.read_config()
    asked = {k: v for k, v in overrides.items() if stays_open(k, before.model.name)}
    now = keep_coarse(run, keep_region_mask(run, override_detection(before, asked)))
    if now != before:
        run.write_config(now)
        say(kept({k: v for k, v in asked.items() if flatten(before)[k] != flatten(now)[k]}))


def _after_training(run: RunFolder, config: Settings) -> str:
    """The command that comes next."""
    from jaxad.training.inputs import open_table

    workdir = f"--workdir={shlex.quote(str(run.path))}"
    if open_table(config.data).test():
        return f"jaxad evaluate {workdir}"
    return f"jaxad predict {workdir} --input=NEW_IMAGES --output=FOLDER (there are no test images)"
