"""Fits anomalib's PaDiM, exports it by anomalib's own `to_onnx`, and times the file.

    PYTHON exported_row.py --folder=DIR --weights=FILE

Called by `exported.py` with the Python of an environment that has anomalib, onnx, onnxscript and
onnxruntime. The folder holds ``train.npy`` and ``test.npy``, bytes (n, h, w, 3). The scores of the
trained model come from the transform that anomalib trains and judges with; those of the file from
the images alone. The last line that is printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time
from importlib.metadata import version
from typing import Any

import numpy as np
from feature_rows import BATCH, DEVIATION, MEAN, _load


def floats(images: np.ndarray) -> np.ndarray:
    """Bytes (n, h, w, 3) to what anomalib's export takes: (n, 3, h, w) float32 in [0, 1]."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / 255


def milliseconds(session: Any, images: np.ndarray, seconds: float) -> dict[str, float]:
    """Of repeated calls of an onnxruntime session, an image; the first call is left out."""
    feed = {session.get_inputs()[0].name: images}
    session.run(None, feed)
    taken: list[float] = []
    begun_cpu = time.process_time()
    while len(taken) < 5 or (sum(taken) < seconds and len(taken) < 200):
        begun = time.perf_counter()
        session.run(None, feed)
        taken.append(time.perf_counter() - begun)
    each = 1000 * np.array(taken) / len(images)
    cpu = 1000 * (time.process_time() - begun_cpu) / len(taken) / len(images)
    return {"median": float(np.median(each)), "p99": float(np.percentile(each, 99)), "cpu": cpu,
            "calls": len(taken)}  # fmt: skip


def padim(weights: str, size: int) -> Any:
    """PaDiM of anomalib on the backbone of `feature_pca`, scores as they are."""
    import torch
    from anomalib.models import Padim
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import Compose, Normalize, Resize

    torch.manual_seed(0)
    mean, deviation = [MEAN / 255] * 3, [DEVIATION / 255] * 3
    transform = Compose([Resize((size, size), antialias=True), Normalize(mean, deviation)])
    model = Padim(backbone="tf_efficientnet_lite0", layers=["blocks.1", "blocks.2", "blocks.4"],
                  pre_trained=False, n_features=100, pre_processor=PreProcessor(transform),
                  post_processor=False, evaluator=False, visualizer=False)  # fmt: skip
    _load(model.model.feature_extractor, weights)
    return model


def write(model: Any, folder: pathlib.Path, size: tuple[int, int]) -> tuple[pathlib.Path, str]:
    """Exports by anomalib's own `to_onnx`, as free as it can be; the file and what it takes.

    anomalib 2.7.0 with PyTorch 2.9.1 cannot leave height and width free behind a resizing.
    """
    from torch.onnx import OnnxExporterError

    ways: dict[str, dict[str, Any]] = {
        "any size, any batch": {},
        "one size, any batch": {"input_size": size},
        "one size, one image": {"input_size": size, "dynamic_axes": None},
    }
    for taken, keys in ways.items():
        try:
            return model.to_onnx(folder, **keys), taken
        except OnnxExporterError as error:
            print(f"{taken}: {str(error)[-600:]}")
    raise SystemExit("it cannot be exported")


def main() -> None:
    """Measures the row."""
    import onnxruntime
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--folder", required=True, type=pathlib.Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=3.0, help="of repeated calls")
    options = parser.parse_args()
    train, test = (np.load(options.folder / f"{part}.npy") for part in ("train", "test"))
    model = padim(options.weights, options.size)
    transform, network = model.pre_processor.transform, model.model
    with torch.no_grad():
        network.train()
        for begin in range(0, len(train), BATCH):
            network(transform(torch.from_numpy(floats(train[begin : begin + BATCH]))))
        network.fit()
        model.eval()
        scores = network(transform(torch.from_numpy(floats(test)))).pred_score.reshape(-1).numpy()
        begun = time.perf_counter()
        file, taken = write(model, options.folder, test.shape[1:3])
    row: dict[str, Any] = {"seconds_of_export": time.perf_counter() - begun, "takes": taken}
    # Weights may lie beside the file.
    row["bytes"] = sum(each.stat().st_size for each in file.parent.glob(f"{file.name}*"))
    begun = time.perf_counter()
    session = onnxruntime.InferenceSession(file)
    names = [output.name for output in session.get_outputs()]
    found = session.run(["pred_score"], {session.get_inputs()[0].name: floats(test[:1])})
    row["first_result_seconds"] = time.perf_counter() - begun
    row["outputs"] = names
    found = [session.run(["pred_score"], {session.get_inputs()[0].name: floats(test[i : i + 1])})[0]
             for i in range(len(test))]  # fmt: skip
    row["largest_relative_difference_of_scores"] = float(
        np.abs(np.concatenate(found).reshape(-1) / scores - 1).max()
    )
    row["ms"] = {
        str(count): milliseconds(session, floats(test[:count]), options.seconds)
        for count in ((1,) if "one image" in taken else (1, 4))
    }
    row["versions"] = {n: version(n) for n in ("anomalib", "torch", "onnxruntime")}
    print(json.dumps(row))


if __name__ == "__main__":
    main()
