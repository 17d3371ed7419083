"""A model of whole photographs beside one of tiles: a missing part and a scratch are both found."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnxruntime
import pytest
from jax import export as jax_export
from PIL import Image
from scipy import ndimage

import jaxad
from jaxad.data.photographs import Photograph, Reading
from jaxad.evaluation.detector_output import DetectorOutput
from jaxad.evaluation.export import export
from jaxad.evaluation.joining import JOINED, Coarse, Range, Ranges, join
from jaxad.evaluation.predict import load_detector
from jaxad.export import onnx_file
from jaxad.run.coarse import read_coarse_run
from jaxad.run.config import with_keys
from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder

SIZE, MIDDLE, RADIUS = (96, 128), (30, 90), 18
"""Of the photographs, and of the disc that each of them should have."""
SQUARE = (70, 65, 3)
"""Row, column and side of a planted square."""

TILES = {
    "data.tiles": (48, 16),
    "data.image_size": (48, 48),
    "model.patch": 4,
    "model.stride": 2,
    "model.components": 6,
    "evaluate.smoothing": 0.0,
    "evaluate.primary_map": "nll",
    "evaluate.primary_score": "nll:max",
}
WHOLE = {
    "data.image_size": (12, 16),
    "model.components": 2,
    "evaluate.smoothing": 1.0,
    "evaluate.primary_map": "l1",
    "evaluate.primary_score": "l1:max",
}
SHARED = {
    "data.holdout": 0.5,
    "data.calibration": "held_out",
    "train.devices": 1,
    "evaluate.report_images": 2,
    "evaluate.batch_size": 4,
}


def part(seed, *, disc=True):
    """A blotched surface with a striped disc, and stripes of the same kind along one side."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    stripes = 90 + 50 * np.sin(x / 1.5)
    away = np.hypot(y - MIDDLE[0], x - MIDDLE[1]) - RADIUS
    inside = np.clip(0.5 - away, 0, 1) if disc else np.zeros(SIZE)
    inside = np.maximum(inside, x < 40)  # an ordinary sight of a tile
    blotches = ndimage.gaussian_filter(rng.normal(0, 1, SIZE), 8, mode="wrap")
    surface = 160 + 10 * blotches / blotches.std()
    values = inside * stripes + (1 - inside) * surface
    noisy = values[..., None] + rng.normal(0, 3, (*SIZE, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("parts")
    row, column, side = SQUARE
    for i in range(12):
        write(root / f"train/good/{i}.png", part(i))
    for i in range(3):
        write(root / f"test/good/{i}.png", part(100 + i))
        write(root / f"test/missing/{i}.png", part(200 + i, disc=False))
        scratched = part(300 + i)
        # Of a pixel of the coarse model it changes less than blotches do.
        scratched[row : row + side, column : column + side] = 255
        write(root / f"test/dot/{i}.png", scratched)
    return root


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def train(root, workdir, keys, **overrides):
    changed = {key.replace("__", "."): value for key, value in overrides.items()}
    config = jaxad.load_config("pca", {**SHARED, **keys, "data.root": str(root), **changed})
    return jaxad.train(config, workdir)


@pytest.fixture(scope="module")
def runs(root, tmp_path_factory):
    """The run of whole photographs, and that of tiles."""
    place = tmp_path_factory.mktemp("runs")
    return train(root, place / "whole", WHOLE), train(root, place / "tiles", TILES)


@pytest.fixture(scope="module")
def joined(runs, tmp_path_factory):
    """A copy of the run of tiles that was evaluated with the other, which is gone since then."""
    place = tmp_path_factory.mktemp("joined")
    whole = shutil.copytree(runs[0].path, place / "whole")
    run = RunFolder(shutil.copytree(runs[1].path, place / "tiles"))
    result = jaxad.evaluate(run.path, overrides={"evaluate.coarse": str(whole)})
    shutil.rmtree(whole)
    return run, result


def by_kind(predictions):
    """Scores and decisions, of all predictions of a kind."""
    found = {}
    for one in predictions:
        found.setdefault(one.path.split("/")[-2], []).append((one.score, one.decision))
    return {kind: tuple(zip(*pairs, strict=True)) for kind, pairs in found.items()}


@pytest.mark.slow
def test_each_model_sees_one_kind_and_both_together_see_both(root, runs, joined):
    whole, tiles = (by_kind(load_detector(run.path).predict(root / "test")) for run in runs)
    for seen, unseen, found in (("missing", "dot", whole), ("dot", "missing", tiles)):
        assert min(found[seen][0]) > max(found["good"][0]) and all(found[seen][1])
        assert min(found[unseen][0]) < max(found["good"][0])
    run, result = joined
    both = by_kind(load_detector(run.path).predict(root / "test"))
    assert all(both["missing"][1]) and all(both["dot"][1])
    assert result["image_auroc"] == 1.0
    assert result["primary_map"] == result["primary_score"] == JOINED
    assert {"nll", "l1", JOINED} <= result["maps"].keys()


def test_a_missing_part_is_shown_where_it_should_be(root, joined):
    row, column, side = SQUARE
    predictor = load_detector(joined[0].path)
    for one in predictor.predict(root / "test/missing"):
        place = np.unravel_index(np.argmax(one.map), SIZE)
        assert np.hypot(place[0] - MIDDLE[0], place[1] - MIDDLE[1]) < RADIUS + 4
        assert one.regions
    for one in predictor.predict(root / "test/dot"):
        place = np.unravel_index(np.argmax(one.map), SIZE)
        assert row - 4 <= place[0] < row + side + 4 and column - 4 <= place[1] < column + side + 4


@pytest.mark.slow
def test_the_run_keeps_a_copy_and_forgets_it_when_it_is_asked_to(root, joined, tmp_path):
    run = RunFolder(shutil.copytree(joined[0].path, tmp_path / "run"))
    name = run.read_config().evaluate.coarse
    assert name.startswith("coarse/") and (run.path / name / "checkpoints").is_dir()
    saved = json.loads(run.calibration.read_text())
    assert saved["joined"].keys() == {"tiles", "coarse"}
    jaxad.evaluate(run.path, overrides={"evaluate.coarse": ""})
    alone = json.loads(run.calibration.read_text())
    assert alone["joined"] is None and alone["image_threshold"] != saved["image_threshold"]
    assert load_detector(run.path).detector.primary_map == "nll"


def test_the_higher_of_both_counts_in_the_unit_of_good_images():
    """By hand: a map of tiles with 4 for 1, one of the whole photograph with 10 for 1."""
    photograph = Photograph(np.zeros((4, 6, 3), np.uint8), Reading(3))
    of_tiles = np.zeros((1, 4, 6), np.float32)
    of_tiles[0, 1, 2] = 8.0
    picture = np.zeros((1, 4, 6, 3), np.uint8)
    output = DetectorOutput({"a": of_tiles}, {"a:max": np.array([8.0])}, picture, picture)
    seen = []

    def judge(images, path):
        seen.append((images.shape, path))
        return np.full((2, 3), 13.0, np.float32), 33.0

    tiles = Ranges(Range(0.0, 4.0), Range(0.0, 4.0))
    own = Ranges(Range(3.0, 13.0), Range(3.0, 13.0))
    coarse = Coarse(judge, (2, 3), own, tiles, ("a", "a:max"))
    found = join(output, photograph, coarse)
    expected = np.ones((1, 4, 6), np.float32)
    expected[0, 1, 2] = 2.0
    np.testing.assert_allclose(found.maps[JOINED], expected, rtol=1e-6)
    np.testing.assert_allclose(found.scores[JOINED], [3.0], rtol=1e-6)
    assert seen == [((1, 2, 3, 3), None)] and found.maps["a"] is of_tiles


def test_ranges_are_those_of_good_images():
    peaks, scores = np.arange(1.0, 40.0), np.arange(39.0)
    ranges = Ranges.from_good(np.array([0.0, 1.0, 5.0]), peaks, scores, rate=0.05)
    # Of 39 one may exceed the threshold, which keeps a ten-thousandth of the largest away.
    assert ranges.map == Range(1.0, pytest.approx(38.0, abs=0.01))
    assert ranges.score == Range(19.0, pytest.approx(37.0, abs=0.01))
    assert Ranges.of_json(json.loads(json.dumps(ranges.to_json()))) == ranges


def changed(run, place, file, group=None, **values):
    """A copy of a run with other values in one of its records."""
    shutil.copytree(run.path, place)
    record = json.loads((place / file).read_text())
    record.pop("content_sha256", None)  # as who edits it by hand is told to
    (record if group is None else record[group]).update(values)
    (place / file).write_text(json.dumps(record))
    return place


def test_what_cannot_be_joined_ends_in_one_sentence(root, runs, tmp_path):
    whole, tiles = runs

    def judged(run, coarse):
        jaxad.evaluate(run.path, overrides={"evaluate.coarse": str(coarse)})

    with pytest.raises(UserError, match=r"this run has no data\.tiles"):
        judged(whole, whole.path)
    with pytest.raises(UserError, match=r"with data\.tiles too"):
        judged(tiles, tiles.path)
    with pytest.raises(UserError, match="is not a run folder"):
        judged(tiles, tmp_path / "none")
    cut = changed(whole, tmp_path / "cut", "config.json", "data", region=[0.0, 0.0, 1.0, 0.5])
    with pytest.raises(UserError, match=r"data\.region=.* both must read photographs"):
        judged(tiles, cut)
    fewer = changed(whole, tmp_path / "fewer", "data.json", holdout=["train/good/0.png"])
    with pytest.raises(UserError, match="not calibrated on the good images that this run is"):
        judged(tiles, fewer)
    (tmp_path / "no_model").mkdir()
    shutil.copyfile(whole.config, tmp_path / "no_model" / "config.json")
    with pytest.raises(UserError, match="holds no trained model"):
        judged(tiles, tmp_path / "no_model")


def test_nothing_stands_in_for_a_copy_that_is_gone(runs, tmp_path, monkeypatch):
    whole, tiles = runs
    name = "coarse/0123456789abcdef"
    shutil.copytree(whole.path, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    config = with_keys(tiles.read_config(), {"evaluate.coarse": name})
    with pytest.raises(UserError, match="is not a run folder"):
        read_coarse_run(tiles, config)


def test_an_exported_file_joins_them_too(root, joined, tmp_path):
    predictor = load_detector(joined[0].path)
    paths = [root / f"test/{kind}/0.png" for kind in ("good", "missing", "dot")]
    predictions = predictor.predict(paths)
    photographs = np.stack([one.photograph(channels=3) for one in predictions])
    record = export(joined[0].path, tmp_path / "file")
    assert record["primary_map"] == record["primary_score"] == JOINED
    stable = jax_export.deserialize(bytearray((tmp_path / "file").read_bytes()))
    record = onnx_file.export(joined[0].path, tmp_path / "file.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "file.onnx")
    results = session.run([*record["outputs"]], {"image": photographs})
    for found in (stable.call(photographs), dict(zip(record["outputs"], results, strict=True))):
        for i, one in enumerate(predictions):
            # The unit divides by the spread of good images, and rounding with it.
            np.testing.assert_allclose(found["map"][i], one.model_map, rtol=0, atol=5e-5)
            np.testing.assert_allclose(found["score"][i], one.score, rtol=0, atol=5e-5)
            assert found["decision"][i] == one.decision
    alone = export(joined[0].path, tmp_path / "tiles", overrides={"evaluate.coarse": ""})
    assert alone["primary_map"] == "nll"
