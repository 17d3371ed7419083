"""An exported `feature_pca` beside anomalib's exported PaDiM: size, latency, scores.

    python tools/benchmarks/exported.py --anomalib-python=ENV/bin/python \
        --data=mvtec_ad/bottle --output=docs/results/exported_cpu.json

Both are fitted to the same good images on EfficientNet-Lite0 with the same weights, then written as
ONNX, jaxad's by `jaxad export --format=onnx`, anomalib's by its `to_onnx`
(`exported_row.py`; the environment needs anomalib, onnx, onnxscript and onnxruntime). The files get
photographs of their own size, resizing inside, 1 and 4 in a call. The difference is that of the
file's scores from those of the trained model on the same photographs.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import tempfile
import time
from typing import Any

import numpy as np
import onnxruntime
from exported_row import milliseconds
from feature_models import weights_file

import jaxad
from jaxad.data.images import decode
from jaxad.export.formats import export
from jaxad.run.environment import describe
from jaxad.run.files import write_json


def of_jaxad(config: str, folder: pathlib.Path, seconds: float) -> dict[str, Any]:
    """The row of a config, trained on the folder's images."""
    train, test = (np.load(folder / f"{part}.npy") for part in ("train", "test"))
    run = folder / config.replace(":", "_")
    jaxad.train(jaxad.load_config(config), run, list(train))
    scores = np.array([one.score for one in jaxad.load_detector(run).predict(list(test))])
    begun = time.perf_counter()
    file = folder / "jaxad.onnx"
    record = export(run, file, format="onnx")
    row: dict[str, Any] = {"seconds_of_export": time.perf_counter() - begun}
    row |= {"bytes": record["bytes"], "takes": "any size, any batch"}
    begun = time.perf_counter()
    session = onnxruntime.InferenceSession(file)
    session.run(["score"], {"image": test[:1]})
    row["first_result_seconds"] = time.perf_counter() - begun
    row["outputs"] = [output.name for output in session.get_outputs()]
    found = [session.run(["score"], {"image": test[i : i + 1]})[0][0] for i in range(len(test))]
    row["largest_relative_difference_of_scores"] = float(np.abs(found / scores - 1).max())
    row["ms"] = {
        str(count): milliseconds(session, test[:count], seconds) for count in (1, 4)
    }  # fmt: skip
    return {"row": f"jaxad {config}", **row}


def of_anomalib(python: str, folder: pathlib.Path, seconds: float) -> dict[str, Any]:
    """The row of PaDiM, measured by the Python that has it."""
    script = pathlib.Path(__file__).with_name("exported_row.py")
    done = subprocess.run(
        [python, script, f"--folder={folder}", f"--weights={weights_file()}",
         f"--seconds={seconds}"], capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{python} ended with {done.returncode}\n{done.stderr[-3000:]}")
    return {"row": "anomalib PaDiM", **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    """Reads the command line, measures, writes, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", required=True, type=pathlib.Path, help="with train/good and test")
    parser.add_argument("--anomalib-python", required=True, help="of an environment with anomalib")
    parser.add_argument("--good", type=int, default=64, help="images to fit to")
    parser.add_argument("--seconds", type=float, default=3.0, help="of repeated calls")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    options = parser.parse_args()
    good = sorted((options.data / "train" / "good").iterdir())[: options.good]
    test = sorted((options.data / "test").glob("*/*"))[::5][:16]
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for part, files in (("train", good), ("test", test)):
            images = np.stack([decode(str(file), channels=3) for file in files])
            np.save(folder / f"{part}.npy", images)
        rows = [of_jaxad(config, folder, options.seconds)
                for config in ("feature_pca", "feature_pca:padim")]  # fmt: skip
        rows.append(of_anomalib(options.anomalib_python, folder, options.seconds))
    facts = {key: describe(0)[key] for key in ("processor", "commit")}
    facts |= {"cores": len(os.sched_getaffinity(0)), "load_average": load,
              "good_images": len(good), "test_images": len(test),
              "photographs": list(images.shape[1:3])}  # fmt: skip
    write_json(options.output, {**facts, "rows": rows})
    print("| | file, MB | takes | first result, s | one image, ms (p99) | 4 together, ms an image "
          "(p99) | largest difference of scores |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for row in rows:
        found = [row["ms"].get(n) for n in ("1", "4")]
        times = (f"{t['median']:.0f} ({t['p99']:.0f})" if t else "" for t in found)
        difference = row["largest_relative_difference_of_scores"]
        cells = (row["row"], f"{row['bytes'] / 1e6:.0f}", row["takes"],
                 f"{row['first_result_seconds']:.1f}", *times, f"{difference:.1e}")  # fmt: skip
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
