"""Evaluating with little memory gives what evaluating with much memory gives, within its bounds."""

import functools
import json

import numpy as np
import pytest
from scipy import ndimage

from jaxad import metrics
from jaxad.data import read_image, read_mask, read_table
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.evaluate import evaluate
from jaxad.evaluation.inputs import read_inputs
from jaxad.evaluation.map_metrics import map_metrics, required_mb, shown_of
from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder

LITTLE = {"evaluate.memory_limit_mb": 0}


@pytest.fixture
def binned(monkeypatch):
    """Accumulators that keep 1500 pixels instead of four million."""
    small = functools.partial(metrics.Accumulator, kept_pixels=1500)
    monkeypatch.setattr(metrics, "Accumulator", small)


@pytest.mark.parametrize("resolution", ["model", "original"])
def test_same_result_within_the_bounds(run, binned, resolution):
    at = {"evaluate.resolution": resolution}
    whole = evaluate(run, overrides=at)
    rows = (run / "scores.csv").read_text()
    page = (run / "report.html").read_text()
    figures = {p.name: p.read_bytes() for p in (run / "figures").iterdir()}
    streamed = evaluate(run, overrides=at | LITTLE)
    assert whole["method"] == "exact" and whole["brackets"] == {}
    assert streamed["method"] == "streaming"
    exact = lambda key: not key.startswith(("pixel_auroc", "pixel_ap", "aupro", "pixel_f", "maps"))
    for key, (low, high) in streamed["brackets"].items():
        value = whole
        for part in key.split("."):
            value = value[part]
        assert low <= value <= high, key
    for key in whole.keys() - {"method", "brackets", "maps", "per_defect"}:
        if "per_image" in key or (exact(key) and key != "protocol_figures"
                                  and key != "protocol_maps"):  # fmt: skip
            assert streamed[key] == whole[key], key
    # The figures of the other maps have their brackets too.
    assert {f"maps.{name}.aupro" for name in whole["maps"]} <= streamed["brackets"].keys()
    # Scores, pictures and cases are the same: those shown were run again.
    assert (run / "scores.csv").read_text() == rows
    assert {p.name: p.read_bytes() for p in (run / "figures").iterdir()} == figures
    again = (run / "report.html").read_text()
    assert "judged batch by batch" in again and "judged batch by batch" not in page
    assert again.count("<svg") == page.count("<svg")
    assert json.loads((run / "metrics.json").read_text())["method"] == "streaming"


def test_regions_found_are_those_of_the_predicted_pixels(run, data):
    result = evaluate(run)
    found = result["regions"]
    detector = Detector.load(run)
    samples = read_table(data).test()
    images = np.stack([read_image(s.path, image_size=(32, 32), channels=3) for s in samples])
    hit = detector(images).maps[detector.primary_map] > result["pixel_threshold"]
    shares, false, normal = [], 0, 0
    for sample, one in zip(samples, hit, strict=True):
        mask = np.zeros((32, 32), bool)
        if sample.mask:
            mask = read_mask(sample.mask, image_size=(32, 32))
        label, count = ndimage.label(mask, np.ones((3, 3)))
        shares += [one[label == k].mean() for k in range(1, count + 1)]
        false, normal = false + int(one[~mask].sum()), normal + int((~mask).sum())
    assert found["regions"] == len(shares) == 4
    assert found["found"] == sum(share > 0 for share in shares)
    assert found["coverage"] == pytest.approx(np.mean(shares), abs=1e-12)
    assert found["false_positive_rate"] == false / normal
    assert set(found["per_defect"]) == {"box"}
    assert "defect regions, by one pixel at least" in (run / "report.html").read_text()


def test_few_pixels_are_exact_even_when_streamed(run):
    whole, streamed = evaluate(run), evaluate(run, overrides=LITTLE)
    assert streamed["method"] == "exact" and streamed["brackets"] == {}
    for name in ("pixel_auroc", "pixel_ap", "aupro", "pixel_f1_max"):
        assert streamed[name] == pytest.approx(whole[name], abs=1e-12)


def test_only_pictured_images_run_twice(run, monkeypatch):
    seen = []
    original = Detector.batches

    def counted(self, images, *size, **inside):
        seen.append(len(images))
        yield from original(self, images, *size, **inside)

    monkeypatch.setattr(Detector, "batches", counted)
    evaluate(run, overrides=LITTLE | {"evaluate.report_images": 2})
    assert seen[:3] == [3, 2, 8]  # the held-out good images, then all test images in one stream
    assert sum(seen[3:]) <= 8  # and each at most once more


def test_memory_estimate_counts_maps_and_pixels(run, data):
    detector = Detector.load(run)
    samples = read_table(data).test()
    # 32 x 32: float32 maps and a byte per channel; judged: mask, resized map, sorted copy.
    expected = 8 * 32 * 32 * (4 * len(detector.maps) + 3 + 9)
    assert required_mb(detector, samples) == expected / 2**20
    detector = Detector.load(run, overrides={"evaluate.resolution": "original"})
    expected += 8 * 9 * (48 * 64 - 32 * 32)
    assert required_mb(detector, samples) == expected / 2**20


def test_protocols_that_need_all_maps_say_so(run):
    with pytest.raises(UserError, match=r"'vae_compare' needs all maps in memory.*memory_limit_mb"):
        evaluate(run, overrides=LITTLE | {"evaluate.protocol": "vae_compare"})


def test_negative_limit_is_refused(run):
    with pytest.raises(UserError, match=r"evaluate.memory_limit_mb.* must be 0 or more, not -1"):
        evaluate(run, overrides={"evaluate.memory_limit_mb": -1})


def test_outputs_that_were_not_kept_are_those_that_were(run):
    detector = Detector.load(run)
    test = read_inputs(RunFolder(run), detector.config, None)
    kept = map_metrics(detector, test, pixel_threshold=None)
    little = Detector.load(run, overrides=LITTLE)
    forgotten = map_metrics(little, test, pixel_threshold=None)
    assert kept.output is not None and forgotten.output is None
    for computed in (kept, forgotten):
        some = shown_of(detector, test, computed, [4, 1])
        assert list(some) == [4, 1]
        heats = kept.output.maps[detector.primary_map]
        for i, shown in some.items():
            np.testing.assert_array_equal(shown.image, test.images[i])
            np.testing.assert_array_equal(shown.reconstruction, kept.output.reconstruction[i])
            np.testing.assert_allclose(shown.heat, heats[i], rtol=1e-6, atol=1e-6)
    for name, values in kept.scores.items():
        np.testing.assert_allclose(forgotten.scores[name], values, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("memory_limit_mb", [0, 1000])
def test_a_pixel_that_equals_the_threshold_is_not_predicted(run, memory_limit_mb):
    detector = Detector.load(run)
    test = read_inputs(RunFolder(run), detector.config, None)
    maps = detector(test.images).maps[detector.primary_map]
    highest = float(maps.max())
    overrides = {"evaluate.memory_limit_mb": memory_limit_mb}
    detector = Detector.load(run, overrides=overrides)
    primary = detector.primary_map, detector.primary_score
    at = map_metrics(detector, test, pixel_threshold=highest).metrics[primary]["regions"]
    assert at["found"] == 0 and at["coverage"] == 0 and at["false_positive_rate"] == 0
    below = float(np.sort(maps, axis=None)[-2])
    assert below < highest
    lower = map_metrics(detector, test, pixel_threshold=below).metrics[primary]["regions"]
    assert lower["found"] + lower["false_positive_rate"] > 0
