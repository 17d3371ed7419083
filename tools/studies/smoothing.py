r"""How wide should the filter on the maps be? Finished runs judged at several widths.

    python tools/studies/smoothing.py --runs transistor=RUN bottle=RUN \
        --output=docs/results/smoothing_vit_memory_cpu.json

Nothing is trained and the runs stay as they are: copies of them are evaluated with
``evaluate.smoothing``, the deviation of the gaussian in pixels of the model's image. Of every run
and width: image AUROC of the config's score, pixel AUROC and AUPRO of the map that decides. It
prints Markdown.
"""

from __future__ import annotations

import argparse
import pathlib
import shutil
import tempfile
from typing import Any

import jaxad
from jaxad.report.tables import markdown_table
from jaxad.run.files import write_json
from jaxad.run.folder import RunFolder

FIGURES = ("image_auroc", "pixel_auroc", "aupro")


def rows_of(name: str, folder: pathlib.Path, widths: list[float]) -> list[dict[str, Any]]:
    """The figures of one run."""
    config = RunFolder(folder).read_config()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        run = shutil.copytree(folder, pathlib.Path(place) / "run")
        for width in widths:
            metrics = jaxad.evaluate(run, overrides={"evaluate.smoothing": width})
            rows.append({
                "data": name, "config": f"{config.model.name}:{config.variants}",
                "image_size": list(config.data.image_size), "smoothing": width,
                "map": metrics["primary_map"], "score": metrics["primary_score"],
                **{key: metrics[key] for key in FIGURES},
            })  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """One row per run, one column per width: image AUROC / pixel AUROC / AUPRO in %."""
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        line = lines.setdefault(row["data"], {"data": row["data"]})
        figures = (f"{100 * row[key]:.1f}" for key in FIGURES)
        line[f"{row['smoothing']:g}"] = " / ".join(figures)
    table = [*lines.values()]
    return markdown_table(table, {key: key for key in table[0]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--widths", nargs="+", type=float, default=[1.0, 2.0, 4.0, 8.0])
    parser.add_argument("--output", type=pathlib.Path, required=True, help="JSON file")
    options = parser.parse_args()
    rows = []
    for one in options.runs:
        name, _, folder = one.partition("=")
        rows += rows_of(name, pathlib.Path(folder), options.widths)
    write_json(options.output, {"made_by": "tools/studies/smoothing.py", "rows": rows})
    print(markdown(rows))


if __name__ == "__main__":
    main()
