"""Times the metrics against scikit-learn, MVTec's algorithm, anomalib and ADEval, in one run.

    python tools/benchmarks/metrics.py --images=100,1000 --output=metrics_cpu.json

Maps are generated: smooth noise around 30, and on about 70 % of the images one to four discs as
defects. Every row runs in a process of its own: after a warm-up on small maps, memory is the
growth of the resident set over maps and masks during the first call, time the best of some
repeats. Rows that claim to be exact must agree; of the others the figures are shown. anomalib and
ADEval are timed where they are installed (neither is needed, nor a dependency). anomalib gets
scores scaled to [0, 1], for it applies a sigmoid to others; ADEval gets the true range of scores,
which it wants to know beforehand.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from scipy import ndimage
from worker import resident

AGREE = 1e-9
BATCH = 16
FIGURES = ("pixel_auroc", "pixel_ap", "aupro")

Row = Callable[[np.ndarray, np.ndarray], dict[str, float]]


def make_maps(images: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns float32 maps and boolean masks, both (images, size, size)."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:size, :size]
    masks = np.zeros((images, size, size), bool)
    for mask in masks:
        if rng.random() < 0.7:
            for _ in range(rng.integers(1, 5)):
                row, col = rng.integers(0, size, 2)
                radius = rng.uniform(0.015, 0.08) * size
                mask |= (rows - row) ** 2 + (cols - col) ** 2 <= radius**2
    noise = ndimage.gaussian_filter(rng.normal(size=masks.shape), (0, 2, 2))
    maps = 30 + 3 * noise / noise.std() + 3 * ndimage.gaussian_filter(masks * 1.0, (0, 3, 3))
    return maps.astype(np.float32), masks


def jaxad_exact() -> Row:
    from jaxad import metrics

    def run(maps, masks):
        result = metrics.evaluate_maps(maps, masks)
        assert result["method"] == "exact"
        return {name: result[name] for name in FIGURES}

    return run


def jaxad_aupro() -> Row:
    from jaxad import metrics

    return lambda maps, masks: {"aupro": metrics.aupro(maps, masks)}


def jaxad_streaming() -> Row:
    from jaxad import metrics

    def run(maps, masks):
        # A small warm-up has to be counted into bins too.
        accumulator = metrics.Accumulator(kept_pixels=min(4_000_000, maps.size // 2))
        for i in range(0, len(maps), BATCH):
            accumulator.update(maps[i : i + BATCH], masks[i : i + BATCH])
        result = accumulator.compute()
        assert result["method"] == "streaming"
        widest = max(high - low for low, high in result["brackets"].values())
        return {name: result[name] for name in FIGURES} | {"widest_bracket": widest}

    return run


def mvtec_write_up() -> Row:
    """One argsort of all pixels and two cumulative sums, as MVTec's evaluation does it."""

    def run(maps, masks, limit=0.3):
        gain = np.zeros(masks.shape, np.float64)
        regions = 0
        for i, mask in enumerate(masks):
            label, found = ndimage.label(mask, np.ones((3, 3)))
            for k in range(1, found + 1):
                gain[i][label == k] = 1 / np.count_nonzero(label == k)
            regions += found
        scores = maps.ravel()
        order = np.argsort(-scores)
        scores = scores[order]
        normal = ~masks.ravel()[order]
        fpr = np.cumsum(normal) / normal.sum()
        pro = np.cumsum(gain.ravel()[order]) / regions
        last = np.append(scores[1:] != scores[:-1], True)
        fpr = np.concatenate([[0.0], fpr[last], [1.0]])
        pro = np.concatenate([[0.0], pro[last], [1.0]])
        inside = fpr < limit
        x = np.append(fpr[inside], limit)
        y = np.append(pro[inside], np.interp(limit, fpr, pro))
        return {"aupro": float(np.trapezoid(y, x) / limit)}

    return run


def scikit_learn() -> Row:
    import sklearn.metrics

    def run(maps, masks):
        truth, scores = masks.ravel(), maps.ravel()
        return {
            "pixel_auroc": float(sklearn.metrics.roc_auc_score(truth, scores)),
            "pixel_ap": float(sklearn.metrics.average_precision_score(truth, scores)),
        }

    return run


def _anomalib(*names: str) -> Row:
    import torch
    from anomalib.metrics.aupr import _AUPR
    from anomalib.metrics.aupro import _AUPRO
    from anomalib.metrics.auroc import _AUROC

    kinds = {"pixel_auroc": _AUROC, "pixel_ap": _AUPR, "aupro": _AUPRO}

    def run(maps, masks):
        states = {name: kinds[name]() for name in names}
        for i in range(0, len(maps), BATCH):
            part = torch.from_numpy(maps[i : i + BATCH])
            truth = torch.from_numpy(masks[i : i + BATCH]).int()
            for state in states.values():
                state.update(part, truth)
        return {name: float(state.compute()) for name, state in states.items()}

    return run


def anomalib_aupro() -> Row:
    return _anomalib("aupro")


def anomalib_all() -> Row:
    return _anomalib(*FIGURES)


def adeval() -> Row:
    np.trapz = np.trapezoid  # it calls the old name, which NumPy 2.4 has dropped
    from adeval import EvalAccumulator

    def run(maps, masks):
        low, high = float(maps.min()), float(maps.max())
        accumulator = EvalAccumulator(low, high)
        accumulator.add_anomap_batch(maps, masks.astype(np.uint8))
        accumulator.add_image(maps.max(axis=(1, 2)), masks.any(axis=(1, 2)))
        with np.errstate(invalid="ignore"):
            found = accumulator.summary()
        keys = ("p_auroc", "p_aupr", "p_aupro")
        return {name: float(found[key]) for name, key in zip(FIGURES, keys, strict=True)}

    return run


# Title -> (what makes the row, whether its figures are exact).
ROWS: dict[str, tuple[Callable[[], Row], bool]] = {
    "jaxad, exact, all figures": (jaxad_exact, True),
    "jaxad, exact, AUPRO alone": (jaxad_aupro, True),
    "jaxad, streaming, all figures": (jaxad_streaming, False),
    "scikit-learn, AUROC + AP": (scikit_learn, True),
    "MVTec's algorithm, AUPRO alone": (mvtec_write_up, True),
    "anomalib, AUPRO alone": (anomalib_aupro, False),
    "anomalib, AUROC + AUPR + AUPRO": (anomalib_all, False),
    "ADEval, streaming, all figures": (adeval, False),
}


def measure(title: str, folder: pathlib.Path, repeats: int) -> dict[str, object]:
    """Seconds, extra MiB and figures of one row, in this process."""
    maps, masks = np.load(folder / "maps.npy"), np.load(folder / "masks.npy")
    if title.startswith("anomalib"):
        maps = (maps - maps.min()) / (maps.max() - maps.min())
    run = ROWS[title][0]()
    run(maps[:8, :64, :64].copy(), masks[:8, :64, :64].copy() | (np.arange(64) < 3))
    before = resident("VmRSS")
    seconds = []
    for repeat in range(repeats):
        start = time.perf_counter()
        figures = run(maps, masks)
        seconds.append(time.perf_counter() - start)
        if not repeat:
            extra = resident("VmHWM") - before
        if sum(seconds) > 15:
            break
    return {"seconds": min(seconds), "extra_mib": max(extra, 0.0), "figures": figures}


def compare(images: int, size: int, repeats: int) -> dict[str, dict[str, object]]:
    """All rows on one set of maps, each in a process of its own."""
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for name, array in zip(("maps", "masks"), make_maps(images, size), strict=True):
            np.save(folder / f"{name}.npy", array)
        for title in ROWS:
            command = [sys.executable, __file__, f"--row={title}", f"--folder={folder}"]
            done = subprocess.run(
                [*command, f"--repeats={repeats}"], capture_output=True, text=True, check=False
            )
            if done.returncode:
                why = done.stderr.strip().splitlines()[-1:]
                print(f"{title}: left out ({' '.join(why)})", file=sys.stderr)
                continue
            rows[title] = json.loads(done.stdout.splitlines()[-1])
    return rows


def require_agreement(rows: dict[str, dict[str, object]]) -> None:
    """Exact rows must give the same figures.

    Raises:
      SystemExit: they differ.
    """
    seen: dict[str, float] = {}
    for title, row in rows.items():
        for figure, value in row["figures"].items() if ROWS[title][1] else ():
            if abs(seen.setdefault(figure, value) - value) > AGREE:
                raise SystemExit(f"{figure} differs: {seen[figure]!r} and {value!r} ({title})")


def show(images: int, size: int, rows: dict[str, dict[str, object]]) -> None:
    """Prints a table in Markdown."""
    print(f"\n{images} maps of {size} x {size}\n")
    print("| | time | extra memory | AUROC | AP | AUPRO |\n|---|---|---|---|---|---|")
    for title, row in rows.items():
        cells = [f"{row['figures'][n]:.6f}" if n in row["figures"] else "" for n in FIGURES]
        print(f"| {title} | {row['seconds']:.2f} s | {row['extra_mib']:.0f} MiB | ", end="")
        print(" | ".join(cells) + " |")


def versions() -> dict[str, str]:
    """Of what is installed of the packages compared."""
    found = {}
    for name in ("numpy", "scipy", "scikit-learn", "torch", "anomalib", "ADEval"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("--images", default="100", help="numbers of maps, for example 100,1000")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(json.dumps(measure(args.row, args.folder, args.repeats)))
        return

    runs = []
    for images in map(int, args.images.split(",")):
        rows = compare(images, args.size, args.repeats)
        require_agreement(rows)
        show(images, args.size, rows)
        runs.append({"images": images, "size": args.size, "rows": rows})
    if args.output:
        from jaxad.run.environment import processor_name

        result = {
            "processor": processor_name(),
            "python": platform.python_version(),
            "repeats": args.repeats,
            "versions": versions(),
            "runs": runs,
        }
        args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
