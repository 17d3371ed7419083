"""How many passes does a masked autoencoder's detection need? Trains, measures, draws one plot.

    python tools/studies/mae_schedules.py --data tile=DIR bottle=DIR --workdir=RUNS \
        --output=docs/results/mae_schedules.json --plot=docs/images/mae_schedules.png

For every data set and seed, `mae:small` is trained once (RUNS/NAME/seedN, an ordinary run folder;
a finished run is not trained again), and the test images are reconstructed by every schedule of
masks. The paper's, every block of 2 x 2 patches in turn, is what the others are compared with,
unless `--against` names another one.

Figures are means over seeds. Intervals are paired bootstraps over test images, good and anomalous
ones drawn each among themselves, the same draws for all schedules and seeds: they tell how sure the
difference is for these networks and other images. `untrained` is the schedule compared with, by
the parameters that training began from: what training adds is seen at little cost by

    python tools/studies/mae_schedules.py --data ... --workdir=RUNS --against="random 4" \
        --schedules "random 4" --output=docs/results/mae_training.json

Pixel AUROC is pooled over all pixels, from histograms of 2,048
bins. Speed is that of the detection step alone, compiled, in batches of `evaluate.batch_size`;
where others use the machine too, compare the CPU seconds in the JSON file.

A schedule qualifies when it is ten times as fast as that and no interval of a difference
lies below -0.005 as a whole; it is `as_good` when all intervals lie above -0.005 as a whole.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxad import models
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.inputs import read_masks, run_table
from jaxad.evaluation.postprocess import make_detect
from jaxad.models.base import parameter_key
from jaxad.report.tables import markdown_table
from jaxad.run.config import load_config, with_keys
from jaxad.run.environment import keep_freed_memory, processor_name
from jaxad.run.files import write_json
from jaxad.run.folder import RunFolder
from jaxad.training.inputs import decode
from jaxad.training.train import train

PAPER = "sliding"
UNTRAINED = "untrained"
SCHEDULES: dict[str, dict[str, Any]] = {
    PAPER: {"schedule": "sliding"},
    "interleaved 16": {"schedule": "interleaved", "passes": 16},
    "interleaved 9": {"schedule": "interleaved", "passes": 9},
    "interleaved 4": {"schedule": "interleaved", "passes": 4},
    "interleaved 2": {"schedule": "interleaved", "passes": 2},
    "interleaved 4, blocks of 1": {"schedule": "interleaved", "passes": 4, "block": 1},
    "interleaved 4, blocks of 4": {"schedule": "interleaved", "passes": 4, "block": 4},
    "interleaved 2, blocks of 4": {"schedule": "interleaved", "passes": 2, "block": 4},
    "random 4": {"schedule": "random", "passes": 4, "block": 1},
    "random 4, blocks of 2": {"schedule": "random", "passes": 4, "block": 2},
    "random 4, blocks of 4": {"schedule": "random", "passes": 4, "block": 4},
    "random 16": {"schedule": "random", "passes": 16, "block": 1},
}
FASTER, MARGIN = 10.0, 0.005
BINS = 2048
KINDS = ("image_auroc", "pixel_auroc")


class Measured(NamedTuple):
    """One schedule on the test images of one run.

    Attributes:
      scores: image scores.
      good: per image, a histogram of the pixels outside its mask.
      bad: likewise inside.
      seconds: per image.
      cpu_seconds: per image, of all cores.
    """

    scores: np.ndarray
    good: np.ndarray
    bad: np.ndarray
    seconds: float
    cpu_seconds: float


# --- measuring --------------------------------------------------------------------------------


def trained_run(root: str, folder: pathlib.Path, seed: int, overrides: dict[str, str]) -> None:
    own = {"data.root": root, "seed": seed}
    train(load_config("mae:small", {**overrides, **own}), folder)


def chosen(labels: np.ndarray, most: int) -> np.ndarray:
    """At most so many images, spread over each class in proportion."""
    if not most or len(labels) <= most:
        return np.arange(len(labels))
    parts = []
    for label in (0, 1):
        members = np.flatnonzero(labels == label)
        count = max(1, round(most * len(members) / len(labels)))
        parts.append(members[np.linspace(0, len(members) - 1, count).astype(int)])
    return np.sort(np.concatenate(parts))


def measure_run(
    folder: pathlib.Path, names: Sequence[str], most: int
) -> tuple[np.ndarray, dict[str, Measured]]:
    """Labels of the test images, and every schedule on them; the first one untrained too."""
    run, detector = RunFolder(folder), Detector.load(folder)
    config = detector.config
    samples = list(run_table(config, None).test())
    labels = np.array([int(sample.label) for sample in samples])
    kept = chosen(labels, most)
    samples = [samples[i] for i in kept]
    record = run.read_json(run.data)
    images = np.asarray(decode(samples, config.data, tuple(record["range_16bit"])))
    config = with_keys(config, {"evaluate.resolution": "model"})
    masks = read_masks(samples, config)
    fresh = jax.jit(detector.model.init)(parameter_key(config.seed))
    found = {}
    for name in (*names, UNTRAINED):
        own = SCHEDULES[names[0] if name == UNTRAINED else name]
        model = models.build("mae", detector.model.image_shape, **(config.model.options | own))
        variables = fresh if name == UNTRAINED else detector.variables
        found[name] = measure(model, variables, config.evaluate, images, masks)
        print(f"{folder}: {name}, {1 / found[name].seconds:.2f} images/s", file=sys.stderr)
    return labels[kept], found


def measure(model, variables, options, images: np.ndarray, masks: list) -> Measured:
    detect = make_detect(model, smoothing=options.smoothing)

    @jax.jit
    def step(variables, images):
        output = detect(variables, images)
        return output.scores[options.primary_score], output.maps[options.primary_map]

    size, scores, maps, seconds, cpu_seconds = options.batch_size, [], [], [], []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        padded = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
        if not start:
            jax.block_until_ready(step(variables, padded))
        began, began_cpu = time.perf_counter(), time.process_time()
        score, values = jax.device_get(step(variables, padded))
        seconds.append((time.perf_counter() - began) / size)
        cpu_seconds.append((time.process_time() - began_cpu) / size)
        scores.append(score[: len(part)])
        maps.append(values[: len(part)])
    good, bad = histograms(np.concatenate(maps), masks)
    times = (float(np.median(seconds)), float(np.median(cpu_seconds)))
    return Measured(np.concatenate(scores), good, bad, *times)


def histograms(maps: np.ndarray, masks: list) -> tuple[np.ndarray, np.ndarray]:
    """Per image, how many pixels outside and inside its mask fall into each of BINS bins.

    The bins hold about equally many pixels. An anomalous image without a mask has no pixels.
    """
    edges = np.unique(np.quantile(maps, np.linspace(0.0, 1.0, BINS + 1)[1:-1]))
    good, bad = np.zeros((2, len(maps), len(edges) + 1), np.int64)
    for i, (values, mask) in enumerate(zip(maps, masks, strict=True)):
        if mask is not None:
            place = np.searchsorted(edges, values, side="right")
            good[i] = np.bincount(place[~mask], minlength=len(edges) + 1)
            bad[i] = np.bincount(place[mask], minlength=len(edges) + 1)
    return good, bad


# --- figures and intervals --------------------------------------------------------------------


def image_auroc(labels: np.ndarray, scores: np.ndarray, times: np.ndarray) -> np.ndarray:
    """AUROC when image i counts ``times[:, i]`` times."""
    bad, good = labels == 1, labels == 0
    above = np.sign(scores[bad][:, None] - scores[good][None]) * 0.5 + 0.5
    pairs = times[:, bad].sum(axis=1) * times[:, good].sum(axis=1)
    return np.sum(times[:, bad] @ above * times[:, good], axis=1) / pairs


def pixel_auroc(good: np.ndarray, bad: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Likewise of pixels; those of one bin count as equal."""
    good, bad = times @ good.astype(np.float64), times @ bad.astype(np.float64)
    below = np.cumsum(good, axis=1) - 0.5 * good
    pairs = good.sum(axis=1) * bad.sum(axis=1)
    return np.divide(np.sum(bad * below, axis=1), pairs, out=np.full(len(pairs), np.nan),
                     where=pairs > 0)  # fmt: skip


def draws(labels: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """How often each image is drawn: first the data as they are, then the resamples."""
    rng = np.random.default_rng(seed)
    times = np.ones((1 + resamples, len(labels)), np.int64)
    for label in (0, 1):
        members = np.flatnonzero(labels == label)
        chance = np.full(len(members), 1.0 / len(members))
        times[1:, members] = rng.multinomial(len(members), chance, size=resamples)
    return times.astype(np.float64)


def figures_of(labels: np.ndarray, seeds: list[dict[str, Measured]], resamples: int, seed: int):
    """Kind -> schedule -> ``(seeds, 1 + resamples)`` figures of one data set."""
    times = draws(labels, resamples, seed)
    return {
        "image_auroc": {
            name: np.stack([image_auroc(labels, one[name].scores, times) for one in seeds])
            for name in seeds[0]
        },
        "pixel_auroc": {
            name: np.stack([pixel_auroc(one[name].good, one[name].bad, times) for one in seeds])
            for name in seeds[0]
        },
    }


def interval(values: np.ndarray) -> dict[str, float | None]:
    """A figure and its 95 % interval, from the data's value and those of the resamples."""
    if np.isnan(values).any():
        return {"value": None, "low": None, "high": None}
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def summary(figures: dict[str, dict[str, np.ndarray]], speed: dict[str, float]) -> list[dict]:
    """One row per schedule: figures, differences from the first one's, speed, verdict.

    Args:
      figures: kind -> schedule -> ``(parts, 1 + resamples)``, which are averaged.
      speed: schedule -> images per second.
    """
    rows, first = [], next(iter(speed))
    for name in speed:
        row: dict[str, Any] = {"schedule": name, "images_per_second": speed[name]}
        row["times_as_fast"] = speed[name] / speed[first]
        for kind in KINDS:
            own = figures[kind][name]
            row[kind] = interval(own.mean(axis=0))
            row[f"{kind}_difference"] = interval((own - figures[kind][first]).mean(axis=0))
            row[f"{kind}_by_seed"] = [None if np.isnan(v) else float(v) for v in own[:, 0]]
        differences = [row[f"{kind}_difference"] for kind in KINDS]
        differences = [d for d in differences if d["value"] is not None]
        row["as_good"] = all(d["low"] >= -MARGIN for d in differences)
        row["qualifies"] = name != UNTRAINED and row["times_as_fast"] >= FASTER and all(
            d["high"] >= -MARGIN for d in differences
        )  # fmt: skip
        rows.append(row)
    return rows


# --- output -----------------------------------------------------------------------------------


def table(rows: list[dict]) -> str:
    def cell(x: dict) -> str:
        if x["value"] is None:
            return "–"
        return f"{100 * x['value']:.1f} [{100 * x['low']:.1f}, {100 * x['high']:.1f}]"

    lines = [
        {
            "schedule": row["schedule"],
            "images/s": f"{row['images_per_second']:.2f}",
            "times": f"{row['times_as_fast']:.1f}",
            **{
                f"{kind}{part}": cell(row[f"{kind}{part}"])
                for kind in KINDS
                for part in ("", "_difference")
            },
        }
        for row in rows
    ]
    return markdown_table(lines, {name: name.replace("_", " ") for name in lines[0]})


def draw_plot(results: dict[str, list[dict]], target: pathlib.Path) -> None:
    """Differences from the first schedule with their paired intervals, over the speed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    figure, panels = pyplot.subplots(
        2, len(results), figsize=(3.6 * len(results) + 2.4, 6.0), sharex=True, squeeze=False
    )
    colours = {"interleaved": "tab:blue", "random": "tab:orange", PAPER: "black"}
    shapes = dict(zip(SCHEDULES, "sovD^<>XP*hd", strict=True))
    for column, (name, rows) in enumerate(results.items()):
        for line, kind in enumerate(KINDS):
            panel = panels[line, column]
            panel.axhline(0.0, color="black", linewidth=0.8, linestyle=":")
            for row in rows:
                change = row[f"{kind}_difference"]
                if row["schedule"] == UNTRAINED or change["value"] is None:
                    continue
                value, low, high = (100 * change[key] for key in ("value", "low", "high"))
                panel.errorbar(
                    row["images_per_second"], value, [[value - low], [high - value]],
                    fmt=shapes[row["schedule"]], markersize=6, capsize=2, linewidth=1,
                    color=colours[row["schedule"].split()[0]], label=row["schedule"],
                )  # fmt: skip
            panel.set_xscale("log")
            panel.xaxis.set_major_locator(FixedLocator([1, 3, 10, 30, 100]))
            panel.xaxis.set_minor_locator(NullLocator())
            panel.xaxis.set_major_formatter(ScalarFormatter())
            panel.grid(alpha=0.3)
        first = {kind: 100 * rows[0][kind]["value"] for kind in KINDS if rows[0][kind]["value"]}
        at = ", ".join(f"{kind.split('_')[0]} {value:.1f}" for kind, value in first.items())
        panels[0, column].set_title(f"{name} ({rows[0]['schedule']}: {at})", fontsize=9)
        panels[1, column].set_xlabel("images per second")
    for line, kind in enumerate(KINDS):
        panels[line, 0].set_ylabel(f"{kind.replace('_auroc', ' AUROC')}, difference in points")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="center right", fontsize=8)
    figure.tight_layout(rect=(0.0, 0.0, 1.0 - 2.0 / figure.get_figwidth(), 1.0))
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--schedules", nargs="+", choices=SCHEDULES, default=list(SCHEDULES))
    parser.add_argument("--against", choices=SCHEDULES, default=PAPER, help="compared with this")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE",
                        help="config keys of the training, such as train.steps=500")  # fmt: skip
    parser.add_argument("--test-images", type=int, default=0, help="at most; 0: all")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="JSON file")
    parser.add_argument("--plot", type=pathlib.Path, help="PNG; needs `pip install matplotlib`")
    options = parser.parse_args(arguments)
    keep_freed_memory()
    names = list(dict.fromkeys([options.against, *options.schedules]))
    overrides = dict(item.split("=", 1) for item in options.set)
    all_figures, all_speeds, results, counts = [], [], {}, {}
    for number, (name, root) in enumerate(item.split("=", 1) for item in options.data):
        runs = []
        for seed in options.seeds:
            folder = options.workdir / name / f"seed{seed}"
            trained_run(root, folder, seed, overrides)
            labels, found = measure_run(folder, names, options.test_images)
            runs.append(found)
        figures = figures_of(labels, runs, options.resamples, number)
        speed = {k: float(np.median([1 / run[k].seconds for run in runs])) for k in runs[0]}
        results[name] = summary(figures, speed)
        for row in results[name]:
            times = [run[row["schedule"]].cpu_seconds for run in runs]
            row["cpu_seconds_per_image"] = float(np.median(times))
        counts[name] = {"good": int(np.sum(labels == 0)), "anomalous": int(np.sum(labels == 1))}
        all_figures.append(figures)
        all_speeds.append(speed)
        print(f"\n{name}\n{table(results[name])}")
    joined = {
        kind: {k: np.concatenate([f[kind][k] for f in all_figures]) for k in all_speeds[0]}
        for kind in KINDS
    }
    mean_speed = {
        k: float(np.exp(np.mean([np.log(speed[k]) for speed in all_speeds]))) for k in all_speeds[0]
    }
    together = summary(joined, mean_speed)
    print(f"\nall data sets (speed: geometric mean)\n{table(together)}")
    qualified = [row["schedule"] for row in together if row["qualifies"]]
    print(f"ten times as fast and no worse that can be told: {', '.join(qualified) or 'none'}")
    device = f"{processor_name()}, {jax.devices()[0]}"
    settings = {"seeds": options.seeds, "set": overrides, "test_images": counts,
                "resamples": options.resamples, "device": device}  # fmt: skip
    report = {"settings": settings, "data": results, "together": together, "qualified": qualified}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.output, json.loads(json.dumps(report)))
    if options.plot:
        draw_plot(results, options.plot)


if __name__ == "__main__":
    main()
