"""From a folder of good images to the model to go on with: ``select(root, workdir)``."""

from __future__ import annotations

import math
import os
import pathlib
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxad.run.environment import enable_compilation_cache
from jaxad.run.errors import UserError
from jaxad.run.files import make_folder, remove_unfinished, try_lock
from jaxad.run.progress import OnProgress, reporting_to
from jaxad.run.text import brief, say
from jaxad.selection.candidates import CANDIDATES, Candidate, candidate_of, parted
from jaxad.selection.judge import TooSlow, judge
from jaxad.selection.page import write_page
from jaxad.selection.ranking import Row, choose, rank, reasons_for
from jaxad.selection.records import RESULT, STOPPED, SelectionFolder, read_record, write_record
from jaxad.selection.trial import OWN_KEYS, Trial, make_trial


class Selection(NamedTuple):
    """What was found.

    Attributes:
      chosen: the row of the ranking to go on with.
      rows: the ranking.
      left_out: candidate -> why it was not judged.
      command: that trains the chosen one on all images.
      folder: of the files: the page, the ranking as a table, the runs.
    """

    chosen: Row
    rows: list[Row]
    left_out: dict[str, str]
    command: str
    folder: SelectionFolder


def select(
    root: str | os.PathLike,
    workdir: str | os.PathLike,
    *,
    minutes: float | int = 10,
    configs: Sequence[str | Candidate] = (),
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Selection:
    """Chooses a model, its map, its score and its image size by defects drawn on good images.

    Called again with the same folders it goes on where it was interrupted; with more minutes it
    tries what had no time.

    Args:
      root: as ``data.root``.
      workdir: what was judged on, what each candidate gave, the runs, and the page.
      minutes: for all candidates together, those of earlier calls among them.
      configs: to try in place of :data:`~jaxad.selection.candidates.CANDIDATES`.
      overrides: other keys ``data.*`` of all of them, such as ``data.category``.
      seed: of the images left out, of the defects and of training.
      on_progress: is called with a :class:`jaxad.run.progress.Update` of all work inside.

    Raises:
      UserError: there are no images or too few, defects cannot be placed, the budget is below what
        one candidate needs, or the folder holds another selection.
    """
    keys = _keys(root, overrides or {})
    enable_compilation_cache()
    own = [candidate_of(one) if isinstance(one, str) else one for one in configs]
    candidates = tuple(own) or CANDIDATES
    able, left_out = parted(candidates)
    folder = SelectionFolder(workdir)
    _check_names(folder, candidates)
    _check_budget(able, left_out, minutes)
    make_folder(folder.results, what=f"--workdir {folder.path}")
    with try_lock(folder.path / ".lock") as mine, reporting_to(on_progress):
        if not mine:
            raise UserError(f"another process is selecting in {folder.path}; wait for it")
        for place in (folder.path, folder.results):
            remove_unfinished(place)
        size = _largest(candidates)
        say("drawing defects on good images that are left out", file=sys.stderr)
        trial = make_trial(folder, keys, image_size=size, seed=seed)
        results, more = _judge_all(folder, able, trial, minutes)
        left_out |= more
        flattered = [one.name for one in able if one.trained_on_drawn_defects]
        rows = rank(results, trial.splits, flattered=flattered, seed=seed)
        chosen = choose(rows)
        command = _command(chosen, trial)
        reasons = reasons_for(chosen, rows, flattered=flattered)
        write_page(folder, trial, rows, chosen, reasons, left_out, command)
    return Selection(chosen, rows, left_out, command, folder)


def _keys(root: str | os.PathLike, overrides: Mapping[str, Any]) -> dict[str, Any]:
    for key in overrides:
        if not key.startswith("data.") or key in OWN_KEYS or key == "data.root":
            raise UserError(
                f"jaxad select takes keys of data alone, and sets {', '.join(OWN_KEYS)} itself; "
                f"leave {key} out"
            )
    # Whether parts are turned to one pose is decided by good images, so it needs no candidates.
    absolute = os.path.abspath(os.path.expanduser(os.fspath(root)))
    return {"data.align": "auto", **overrides, "data.root": absolute}


def _check_names(folder: SelectionFolder, candidates: Sequence[Candidate]) -> None:
    """No two candidates may have the same files."""
    names: dict[pathlib.Path, Candidate] = {}
    for one in candidates:
        other = names.setdefault(folder.result(one.name), one)
        if other != one:
            raise UserError(
                f"{brief(other.name)} and {brief(one.name)} would both be kept in "
                f"{folder.result(one.name)}; give one of them another name"
            )


def _check_budget(
    able: Sequence[Candidate], left_out: Mapping[str, str], minutes: float | int
) -> None:
    if not able:
        raise UserError("; ".join(f"{name}: {why}" for name, why in left_out.items()))
    cheapest = min(able, key=lambda one: one.seconds)
    if not minutes * 60 >= cheapest.seconds:
        raise UserError(
            f"--minutes={minutes:g} is less than one candidate needs: {cheapest.name} takes about "
            f"{cheapest.seconds:g} s, so give --minutes={-(-cheapest.seconds // 6) / 10:g} or more"
        )


def _largest(candidates: Sequence[Candidate]) -> tuple[int, int]:
    sizes = [candidate.settings({}).data.image_size for candidate in candidates]
    return max(size[0] for size in sizes), max(size[1] for size in sizes)


def _judge_all(
    folder: SelectionFolder, candidates: Sequence[Candidate], trial: Trial, minutes: float | int
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """What each candidate gave, in the usual order, and why others were not judged.

    Raises:
      UserError: none could be judged.
    """
    budget, left_out = 60.0 * minutes, {}
    found = {one.name: _known(folder, one, trial) for one in candidates}
    closed_forms_first = sorted(candidates, key=lambda one: one.trained)
    for number, candidate in enumerate(closed_forms_first, start=1):
        name = f"[{number}/{len(candidates)}] {candidate.name}"
        if found[candidate.name] is not None:
            say(f"{name}: judged before", file=sys.stderr)
            continue
        done = [one for one in found.values() if one is not None]
        left = budget - sum(one["seconds"] for one in done)
        expected = _expected(folder, candidate, trial, done)
        if expected > left:
            left_out[candidate.name] = _no_time(budget - left + expected)
            continue
        say(f"{name}: about {expected:.0f} s", file=sys.stderr)
        begun = time.perf_counter()
        try:
            result = judge(folder, candidate, trial, seconds=left)
        except TooSlow as error:
            write_record(
                folder.stopped(candidate.name),
                STOPPED,
                {"trial": trial.digest, "seconds": error.seconds},
            )
            left_out[candidate.name] = _no_time(budget - left + error.seconds)
        except UserError as error:
            left_out[candidate.name] = str(error)
            say(f"{name}: {error}", file=sys.stderr)
        else:
            write_record(folder.result(candidate.name), RESULT, result)
            found[candidate.name] = result
            say(f"{name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr)
    results = [one for one in found.values() if one is not None]
    if not results:
        raise UserError("; ".join(f"{name}: {why}" for name, why in left_out.items()))
    return results, left_out


def _no_time(seconds: float) -> str:
    """Why a candidate was left out, and what would be enough."""
    return f"no time was left; --minutes={math.ceil(seconds / 60)} is enough for it"


def _known(folder: SelectionFolder, candidate: Candidate, trial: Trial) -> dict[str, Any] | None:
    """What a candidate gave in an earlier call.

    Raises:
      UserError: its file is damaged, of another trial, or of a config that has changed since.
    """
    path = folder.result(candidate.name)
    result = read_record(path, RESULT)
    if result is None:
        return None
    if result["trial"] != trial.digest:
        raise UserError(f"{path} is of other images or defects; remove it")
    now = candidate.digest(trial.keys)
    if (result["candidate"], result.get("settings", now)) != (candidate.name, now):
        raise UserError(
            f"{path} is of {brief(result['candidate'])} with other settings than "
            f"{candidate.name} has now; use a new --workdir"
        )
    if not _is_whole(result, trial):
        raise UserError(
            f"{path} is damaged (it lacks scores of images, or of maps); remove it, and the "
            "candidate is judged again"
        )
    return result


def _is_whole(result: Mapping[str, Any], trial: Trial) -> bool:
    """Whether there are as many scores as images, and figures of all maps."""
    good, drawn, pixels = result["good"], result["drawn"], result["pixel_auroc"]
    sizes = [[len(split.good) for split in trial.splits], [len(s.kinds) for s in trial.splits]]
    return (
        {result["primary_score"]} <= good.keys() == drawn.keys()
        and {result["primary_map"], *result["maps"]} <= pixels.keys()
        and all(
            [len(each) for each in scores] == size
            for part, size in zip((good, drawn), sizes, strict=True)
            for scores in part.values()
        )
    )


def _expected(
    folder: SelectionFolder,
    candidate: Candidate,
    trial: Trial,
    done: Sequence[Mapping[str, Any]],
) -> float:
    """Seconds that a candidate will take, by what the others took here."""
    stopped = read_record(folder.stopped(candidate.name), STOPPED)
    if stopped is not None and stopped["trial"] == trial.digest:
        return float(stopped["seconds"])
    if not done:
        return float(candidate.seconds)
    speed = sum(one["seconds"] for one in done) / sum(one["expected_seconds"] for one in done)
    return candidate.seconds * speed


def _command(row: Row, trial: Trial) -> str:
    own = {
        key: value
        for key, value in trial.keys.items()
        if key not in ("data.holdout", "data.calibration", "data.limit", "data.memory_limit_mb")
    }
    keys = {
        **own,
        **row.overrides,
        "evaluate.primary_map": row.map,
        "evaluate.primary_score": row.score,
    }
    words = [f"--config.{key}={_as_word(value)}" for key, value in keys.items()]
    return " ".join(
        map(shlex.quote, ["jaxad", "train", f"--config={row.config}", *words, "--workdir=RUN"])
    )


def _as_word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
