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
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

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


class Tally:
    """What is to be tried, in turn, and what came of it; for several threads."""

    def __init__(self, title: str, columns: Sequence[str], shares: Mapping[str, int], count: int,
                 *, seed: int, json_file: str = ""):  # fmt: skip
        """Plans the tries.

        Args:
          title: of the table, and its key in the JSON file.
          columns: outcomes, behind the number of tries.
          shares: name -> share of the tries; each name has one at least.
          count: of all tries.
          seed: number of the first case of every name.
          json_file: written after every try; empty for none.
        """
        self._title, self._columns, self._json = title, ("tried", *columns), json_file
        wanted = {n: max(1, round(count * s / sum(shares.values()))) for n, s in shares.items()}
        turns = [((i + 0.5) / n, name) for name, n in wanted.items() for i in range(n)]
        self._names = [name for _, name in sorted(turns)]
        self._next = dict.fromkeys(shares, seed)
        self._spare = 2 * len(self._names)
        self._rows: dict[str, Counter[str]] = {name: Counter() for name in shares}
        self._lock = threading.Lock()
        self.notes: list[str] = []

    def cases(self) -> Iterator[tuple[str, int]]:
        """Names and numbers of cases, until none is left."""
        while True:
            with self._lock:
                if not self._names:
                    return
                name = self._names.pop(0)
                self._next[name] += 1
                case = self._next[name] - 1
            yield name, case

    def again(self, name: str) -> None:
        """Plans another case in place of one that was none."""
        with self._lock:
            if self._spare:
                self._spare -= 1
                self._names.append(name)

    def add(self, name: str, outcome: str, note: str = "") -> None:
        """Counts an outcome; a note is printed at once and at the end."""
        with self._lock:
            self._rows[name].update(["tried", outcome])
            if note:
                self.notes.append(note)
                print(f"\n{note}", file=sys.stderr, flush=True)
            if self._json:
                rows = {**self._rows, "all": sum(self._rows.values(), Counter())}
                values = {n: {c: counts[c] for c in self._columns} for n, counts in rows.items()}
                text = json.dumps({self._title: values}, indent=1)
                pathlib.Path(self._json).write_text(text + "\n")

    def show(self) -> None:
        """Prints the table and the notes."""
        print(table(self._title, self._columns, self._rows))
        for note in self.notes[:30]:
            print(f"\n{note}")


def table(title: str, columns: Sequence[str], rows: dict[str, Counter[str]]) -> str:
    """Rows and their sum."""
    width = max(map(len, [title, *rows])) + 2
    widths = [max(len(column) + 2, 8) for column in columns]
    total: Counter[str] = sum(rows.values(), Counter())
    lines = [
        f"{title:<{width}}" + "".join(f"{c:>{w}}" for c, w in zip(columns, widths, strict=True))
    ]
    for name, counts in {**rows, "all": total}.items():
        cells = (f"{counts[c]:>{w}}" for c, w in zip(columns, widths, strict=True))
        lines.append(f"{name:<{width}}" + "".join(cells))
    return "\n".join(lines)
