"""Images judged at their original size, by whole images and by tiles: figures and seconds.

    python tools/studies/original_sizes.py --work=DIR --data hazelnut_toy=DIR aws_cookies=DIR \
        --output=docs/results/original_sizes_cpu.json

Trains and evaluates closed-form models on each data set, whole images at the size of their configs
and at their own, and by tiles of 128 pixels at their own scale; masks are compared at the original
size in all of them (`evaluate.resolution=original`). What is already in DIR is not computed again.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
from typing import Any

import jax
from photographs import process
from PIL import Image

from jaxad.run.environment import processor_name

TILES = {"data.tiles": "128,32", "data.image_size": "128,128"}
RUNS: dict[str, tuple[str, dict[str, str]]] = {
    "feature_pca, whole": ("feature_pca", {}),
    "feature_pca, whole, own size": ("feature_pca", {"data.image_size": "own"}),
    "feature_pca:anywhere, tiles": ("feature_pca:anywhere", TILES),
    "feature_pca:fine, tiles": ("feature_pca:fine", TILES),
    "pca, whole": ("pca", {}),
    "pca, whole, own size": ("pca", {"data.image_size": "own"}),
    "pca:patch, tiles": ("pca:patch", {**TILES, "model.patch": "8", "model.components": "64"}),
}
"""Name -> config and keys; the size ``own`` is that of the data set's first image."""


def row_of(name: str, title: str, root: pathlib.Path, work: pathlib.Path) -> dict[str, Any]:
    """Trains, cross-fitted, and evaluates."""
    config, keys = RUNS[title]
    folder = work / f"{name}-{title.replace(', ', '-').replace(' ', '-').replace(':', '-')}"
    done = folder / "study.json"
    if done.exists():
        return json.loads(done.read_text())
    first = min(root.glob("train/good/*.*"))
    width, height = Image.open(first).size
    keys = {key: value.replace("own", f"{height},{width}") for key, value in keys.items()}
    keys |= {"data.root": str(root), "evaluate.resolution": "original"}
    options = [f"--config.{key}={value}" for key, value in keys.items()]
    train = process("train", f"--config={config}", f"--workdir={folder}", *options)
    evaluate = process("evaluate", f"--workdir={folder}")
    metrics = json.loads((folder / "metrics.json").read_text())
    del keys["data.root"]
    row = {
        "data": name,
        "size": [height, width],
        "run": title,
        "config": config,
        "keys": keys,
        **{key: metrics[key] for key in ("image_auroc", "pixel_auroc", "aupro", "decisions")},
        "train": train._asdict(),
        "evaluate": evaluate._asdict(),
    }
    done.write_text(json.dumps(row))
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown, a line for each model, a column for each data set."""
    sets = list(dict.fromkeys(row["data"] for row in rows))
    lines = [f"| | {' | '.join(sets)} |", "|---" * (len(sets) + 1) + "|"]
    for title in dict.fromkeys(row["run"] for row in rows):
        cells = []
        for name in sets:
            for row in rows:
                if (row["data"], row["run"]) == (name, title):
                    of = (row[key] for key in ("image_auroc", "pixel_auroc", "aupro"))
                    cells.append(" / ".join(f"{100 * value:.1f}" for value in of))
        lines.append(f"| `{title}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line, and writes the file after every run."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--work", required=True, type=pathlib.Path)
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=DIR")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for one in arguments.data:
        name, _, root = one.partition("=")
        for title in RUNS:
            rows.append(row_of(name, title, pathlib.Path(root).resolve(), arguments.work))
            report = {
                "device": f"{processor_name()}, {len(os.sched_getaffinity(0))} cores",
                "jax": jax.__version__,
                "rows": rows,
            }
            arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
