"""What the chaos suite works on: small images, a model that compiles at once, runs of it.

A model of two layers on 26 images of 16 x 16 pixels: a command takes about a second.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
import shutil
import sys
from collections.abc import Iterable, Sequence

PROJECT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from stripes import write_stripes  # noqa: E402
from zygote import Ended, Zygote  # noqa: E402

KEYS = {
    "data.image_size": "16,16",
    "data.pipeline": "memory",
    "train.batch_size": "4",
    "train.steps": "8",
    "train.log_every": "2",
    "train.checkpoint_every": "4",
    "train.devices": "1",
    "evaluate.batch_size": "4",
}
LITTER = re.compile(r"[0-9a-f]{16}\.tmp$|orbax-checkpoint-tmp|incomplete\.")
"""Names of what is being written: none may be left behind a command that has ended."""
FILES_OF_EVALUATION = ("metrics.json", "scores.csv", "calibration.json", "odd_images.csv",
                       "config.json", "report.html")  # fmt: skip


class World:
    """Data, config and runs below one folder, to be copied from.

    Attributes:
      data: the data set.
      toy: the config file.
      keys: of the config, as words of a command.
      trained: a run of 8 steps, with checkpoints at 4 and 8.
      evaluated: the same, evaluated.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder, self.data, self.toy = folder, folder / "data", folder / "toy.py"
        self.toy.write_text(_config())
        write_stripes(self.data)
        keys = KEYS | {"data.root": str(self.data)}
        self.keys = [f"--config.{key}={value}" for key, value in keys.items()]
        self.trained, self.evaluated = folder / "trained", folder / "evaluated"

    def train(self, *more: str, run: str = "run", config: str = "") -> list[str]:
        """The words of a training."""
        return ["train", f"--config={config or self.toy}", f"--workdir={run}", *self.keys, *more]

    def make_runs(self, zygote: Zygote) -> None:
        """Makes the runs, from which each try gets a copy of its own."""
        place = self.folder / "first"
        place.mkdir()
        self.succeed(zygote, self.train(), place)
        shutil.copytree(place / "run", self.trained)
        self.succeed(zygote, ["evaluate", "--workdir=run"], place)
        shutil.copytree(place / "run", self.evaluated)

    @staticmethod
    def succeed(zygote: Zygote, words: Sequence[str], place: pathlib.Path) -> Ended:
        ended = zygote.run([*words], place)
        if ended.status:
            raise SystemExit(f"{' '.join(words)} does not work undisturbed:\n{ended.text}")
        return ended


def _config() -> str:
    """Of the toy model, whose file needs JAX, which this process does not."""
    source = (PROJECT / "tests" / "toy_model.py").read_text()
    return source.partition('CONFIG = """')[2].partition('"""')[0]


def digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else "missing"


def digests(folder: pathlib.Path, patterns: Iterable[str]) -> dict[str, str]:
    """Name -> digest of the files below a folder; a name without a star is there or "missing"."""
    found: dict[str, str] = {}
    for pattern in patterns:
        paths = sorted(folder.glob(pattern)) if "*" in pattern else [folder / pattern]
        found |= {str(p.relative_to(folder)): digest(p) for p in paths if not p.is_dir()}
    return found


def training_results(run: pathlib.Path, step: int) -> dict[str, str]:
    """What a training must end in: its history and the digests of its last checkpoint."""
    try:
        record = json.loads((run / "checkpoints" / str(step) / "record" / "metadata").read_text())
        text = json.loads(record["text"]) if "text" in record else record
    except (OSError, ValueError):
        text = {}
    history = ["history.csv"] if step else []  # a closed form takes no steps
    return digests(run, [*history, "config.json", "data.json"]) | {
        name: str(text.get(name, "missing"))
        for name in ("variables", "optimizer", "validation_loss")
    }


def litter(folder: pathlib.Path) -> list[str]:
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if LITTER.search(p.name)]
