"""Times the exact metrics against scikit-learn and a plain full-sort AUPRO, in one run.

    python tools/bench_metrics.py --output=metrics_speed.json

Maps are generated: smooth noise around 30, and on about 70 % of the images one to four discs as
defects. Time is the best of some repeats; memory the peak that Python and NumPy allocate beyond
the maps and masks (tracemalloc), in a run of its own. Rows with the same figure must agree.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import scipy
import sklearn.metrics
from scipy import ndimage

from jaxad import metrics

AGREE = 1e-9


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


def plain_aupro(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> float:
    """MVTec's AUPRO in the plain way: one argsort of all pixels, two cumulative sums."""
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
    return float(np.trapezoid(y, x) / limit)


def contenders(maps: np.ndarray, masks: np.ndarray) -> dict[str, Callable[[], dict[str, float]]]:
    """What is timed: name -> function which returns its figures."""
    truth, scores = masks.ravel(), maps.ravel()

    def evaluate() -> dict[str, float]:
        result = metrics.evaluate_maps(maps, masks)
        return {name: result[name] for name in ("pixel_auroc", "pixel_ap", "aupro")}

    def sklearn_pair() -> dict[str, float]:
        return {
            "pixel_auroc": float(sklearn.metrics.roc_auc_score(truth, scores)),
            "pixel_ap": float(sklearn.metrics.average_precision_score(truth, scores)),
        }

    return {
        "jaxad aupro": lambda: {"aupro": metrics.aupro(maps, masks)},
        "jaxad auroc": lambda: {"pixel_auroc": metrics.auroc(truth, scores)},
        "jaxad evaluate_maps (all figures)": evaluate,
        "plain full-sort aupro": lambda: {"aupro": plain_aupro(maps, masks)},
        "scikit-learn auroc + ap": sklearn_pair,
    }


def measure(function: Callable[[], dict[str, float]], repeats: int) -> dict[str, object]:
    """Returns seconds (best of the repeats), peak extra MiB, and the figures."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        figures = function()
        seconds.append(time.perf_counter() - start)
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"seconds": min(seconds), "peak_mib": peak / 2**20, "figures": figures}


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    info = pathlib.Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    maps, masks = make_maps(args.images, args.size)
    rows = {name: measure(f, args.repeats) for name, f in contenders(maps, masks).items()}

    print(f"{args.images} maps of {args.size}x{args.size}, {processor()}")
    print(f"{'':36}{'seconds':>9}{'peak MiB':>10}  figures")
    seen: dict[str, float] = {}
    for name, row in rows.items():
        figures = "  ".join(f"{k} {v:.6f}" for k, v in row["figures"].items())
        print(f"{name:36}{row['seconds']:9.3f}{row['peak_mib']:10.1f}  {figures}")
        for figure, value in row["figures"].items():
            if abs(seen.setdefault(figure, value) - value) > AGREE:
                raise SystemExit(f"{figure} differs: {seen[figure]!r} and {value!r} ({name})")
    if args.output:
        result = {
            "images": args.images,
            "size": args.size,
            "repeats": args.repeats,
            "processor": processor(),
            "python": platform.python_version(),
            "versions": {m.__name__: m.__version__ for m in (np, scipy, sklearn)},
            "rows": rows,
        }
        args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
