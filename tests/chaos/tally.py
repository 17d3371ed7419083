"""What a part of the chaos suite tries, in turn, and what came of it: a table, and a file of it.

    python tests/chaos/tally.py FILE.json    prints the tables of a file as Markdown

The file holds the tables of all parts that were given its name. A part that finds its own table
there goes on with it: what was tried counts, and is not tried again.
"""

from __future__ import annotations

import json
import os
import pathlib
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxad.run.environment import commit, processor_name

SECONDS = 5.0
"""Between two writes of the file."""
BEGUN = time.monotonic()
"""When this process did, nearly: the parts import this at their start."""


class Tally:
    """The table of one part; for several threads.

    Attributes:
      notes: one on every bad outcome, those of earlier calls included.
    """

    def __init__(self, title: str, columns: Sequence[str], shares: Mapping[str, int], count: int,
                 *, seed: int, json_file: str = ""):  # fmt: skip
        """Plans the tries.

        Args:
          title: of the table, and its key in the JSON file.
          columns: outcomes, behind the number of tries.
          shares: name -> share of the tries; each name has one at least.
          count: of all tries, those of earlier calls in the JSON file included.
          seed: number of the first case of every name.
          json_file: goes on with its table and is written; empty for none.
        """
        self._title, self._columns, self._json = title, ("tried", *columns), json_file
        content = _read(json_file).get(title, {})
        self.notes: list[str] = content.get("notes", [])
        self._earlier = Counter({what: content.get(what, 0.0) for what in _spent()})
        stored = content.get("rows", {})
        self._rows = {
            name: Counter({c: stored.get(name, {}).get(c, 0) for c in self._columns})
            for name in [*shares, *(name for name in stored if name not in shares)]
        }
        self._next = {name: stored.get(name, {}).get("next", seed) for name in self._rows}
        wanted = {n: max(1, round(count * s / sum(shares.values()))) for n, s in shares.items()}
        # Those that have been tried least come first, and all keep in step.
        turns = [
            ((i + 0.5) / n, name) for name, n in wanted.items() for i in range(self.tried(name), n)
        ]
        self._names = [name for _, name in sorted(turns)]
        self._spare = 2 * len(self._names)
        self._lock = threading.Lock()
        self._written = time.monotonic()

    def tried(self, name: str) -> int:
        """How often."""
        return self._rows[name]["tried"]

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

    def batches(self) -> Iterator[tuple[str, int, int]]:
        """As :meth:`cases`, all of a name at once: name, number of the first, and how many."""
        for name, count in Counter(self._names).items():
            self._next[name] += count
            yield name, self._next[name] - count, count
        self._names.clear()

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
            if time.monotonic() - self._written > SECONDS:
                self._write()

    def show(self) -> None:
        """Prints the table, the time it took and the notes, and writes the file."""
        self._write()
        print(table(self._title, self._columns, self._rows))
        print("{seconds:.0f} seconds, {processor_seconds:.0f} of a processor".format(**_spent()))
        for note in self.notes[:30]:
            print(f"\n{note}")

    def _write(self) -> None:
        self._written = time.monotonic()
        if not self._json:
            return
        content, total = _read(self._json), sum(self._rows.values(), Counter())
        rows = {
            name: {c: row[c] for c in self._columns} | {"next": self._next[name]}
            for name, row in self._rows.items()
        }
        content[self._title] = {
            "rows": rows, "all": {c: total[c] for c in self._columns}, "notes": self.notes,
            **{what: round(s + self._earlier[what], 1) for what, s in _spent().items()},
        }  # fmt: skip
        content["processor"], content["cores"] = processor_name(), os.cpu_count()
        content["commits"] = sorted({*content.get("commits", ()), commit() or "unknown"})
        file = pathlib.Path(self._json)
        partial = file.with_name(f".{file.name}.{os.getpid()}")
        partial.write_text(json.dumps(content, indent=1) + "\n")
        partial.replace(file)


def _spent() -> dict[str, float]:
    """Seconds since this process began, and those of a processor, children that have ended too."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    processor = sum(each.ru_utime + each.ru_stime for each in used)
    return {"seconds": time.monotonic() - BEGUN, "processor_seconds": processor}


def _read(file: str) -> dict[str, Any]:
    return json.loads(pathlib.Path(file).read_text()) if file and os.path.exists(file) else {}


def table(title: str, columns: Sequence[str], rows: Mapping[str, Counter[str]]) -> str:
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


def markdown(content: Mapping[str, Any]) -> str:
    """The tables of a file, each with a row for the sum, and one of the time that they took."""
    tables, times = [], ["| part | seconds | of a processor |", "|---|---|---|"]
    for title, part in content.items():
        if not isinstance(part, dict):
            continue
        if "seconds" in part:
            times.append(f"| {title} | {part['seconds']:,.0f} | {part['processor_seconds']:,.0f} |")
        columns = [*part["all"]]
        lines = ["| " + " | ".join([title, *columns]) + " |", "|---" * (len(columns) + 1) + "|"]
        for name, row in {**part["rows"], "**all**": part["all"]}.items():
            lines.append("| " + " | ".join([name, *(f"{row[c]:,}" for c in columns)]) + " |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables + ["\n".join(times)] * (len(times) > 2))


if __name__ == "__main__":
    print(markdown(_read(sys.argv[1])))
