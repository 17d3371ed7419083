"""The exported program of a run with tiles, against detection on the host."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export
from PIL import Image

from jaxad import models
from jaxad.cli import main as cli
from jaxad.data.crop import Box
from jaxad.data.photographs import Reading
from jaxad.data.region_mask import RegionMask
from jaxad.data.tiled import Photographs
from jaxad.data.tiles import Tiling
from jaxad.evaluation.detector_output import DetectorOutput
from jaxad.evaluation.export import export, serialise
from jaxad.evaluation.export_tiles import make_tiled_program
from jaxad.evaluation.export_view import Decisions, View
from jaxad.evaluation.postprocess import make_detect
from jaxad.evaluation.predict import load_detector
from jaxad.evaluation.tiled_detection import judge
from jaxad.models.base import Detection
from jaxad.run.errors import UserError

TOLERANCE = 2e-6
"""Of the largest value: shares, products and sums of float32, fused and in another order."""


def by_brightness(variables, images):
    """Maps of a pixel's brightness and of its darkness, and a score that is no reduction."""
    bright = jnp.mean(images.astype(jnp.float32), axis=-1) + variables["more"]
    maps = {"bright": bright, "dark": 300.0 - bright}
    own = bright[:, 3, 5] - jnp.mean(bright, axis=(1, 2))
    return Detection(maps, {"own": own}, images.astype(jnp.float32) / 255.0)


def model_of(side, channels=3):
    return models.build("pca", (side, side, channels), components=2)._replace(detect=by_brightness)


VARIABLES = {"more": jnp.float32(7.0)}


def on_the_host(photograph, view, smoothing, region):
    detect = jax.jit(make_detect(model_of(view.image_size[0], view.channels), smoothing=smoothing))

    def outputs(tiles, inside=None, places=None):
        yield DetectorOutput(*jax.device_get(detect(VARIABLES, tiles, inside)))

    seen = photograph[view.box.slices]
    if view.channels == 1:
        seen = np.asarray(Image.fromarray(seen).convert("L"))[..., None]
    how = {"image_size": view.image_size, "reading": Reading(view.channels)}
    photographs = Photographs([seen], tiling=view.tiling, **how)
    (opened,) = photographs
    return judge(outputs, photographs, opened, batch_size=3, limit_mb=2048, region=region)


def region_of(size, crop=(0.0, 0.0, 1.0, 1.0)):
    drawn = np.zeros(size, bool)
    drawn[size[0] // 4 : size[0] // 2, size[1] // 5 : -9] = True
    return RegionMask(drawn, crop, name="drawn")


# Photograph, side and overlap of tiles, what the model sees of one, and the case.
CASES = [
    ((97, 131), (40, 16), 16, {"score": "dark:max", "smoothing": 1.0}),
    ((200, 31), (32, 16), 48, {"score": "bright:top1", "channels": 1}),
    ((20, 150), (32, 9), 32, {"score": "own"}),
    ((15, 17), (32, 16), 32, {"score": "bright:top1"}),  # of which a tile is mirrored all around
    ((97, 131), (40, 8), 20, {"region": True, "score": "bright:mean", "smoothing": 1.0}),
    ((120, 140), (32, 8), 32, {"box": Box(11, 7, 99, 133), "score": "dark:top1"}),
]


@pytest.mark.parametrize(("size", "tiles", "side", "case"), CASES)
def test_maps_and_scores_are_those_of_detection(size, tiles, side, case):
    photograph = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    view = View(
        case.get("box", Box(0, 0, *size)),
        Tiling(*tiles),
        (side, side),
        case.get("channels", 3),
    )
    score, smoothing = case.get("score", "bright:max"), case.get("smoothing", 0.0)
    region = region_of(view.box.size) if "region" in case else None
    model = model_of(side, view.channels)
    decisions = Decisions("bright", score, image_threshold=100.0)
    program = make_tiled_program(
        model, VARIABLES, view, decisions, smoothing=smoothing, region=region
    )
    both = np.stack([photograph, photograph // 2])
    found = jax.jit(program)(both)
    for i, one in enumerate(both):
        expected = on_the_host(one, view, smoothing, region)
        (values,) = expected.maps["bright"]
        np.testing.assert_allclose(found["map"][i], values, rtol=0, atol=TOLERANCE * values.max())
        np.testing.assert_allclose(found["score"][i], expected.scores[score][0], rtol=1e-5)
        assert found["decision"][i] == (found["score"][i] > 100.0)
    assert set(found) == {"map", "score", "decision"}


# --- a run ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_run(tiny, tmp_path_factory):
    """Of tiles of gray 16-bit photographs, resized; a part is seen and a part of that judged."""
    folder = tmp_path_factory.mktemp("tiles")
    data = tiny.write_data(folder / "data", train=6, size=(75, 110), deep=True, masks=False)
    drawn = np.zeros((75, 110), np.uint8)
    drawn[12:70, 9:100] = 255
    tiny.save(folder / "drawn.png", drawn)
    run = tiny.fit(
        data,
        folder / "run",
        data__channels=1,
        data__tiles=(40, 12),
        data__image_size=(32, 32),
        data__region=(0.1, 0.05, 1.0, 0.95),
        data__range_16bit="12",
        evaluate__region_mask=str(folder / "drawn.png"),
        evaluate__primary_score="l1:top1",
        evaluate__primary_map="l1",
        evaluate__image_threshold="0.1",
    )
    return run, data


def test_an_exported_run_judges_as_predict_does(own_run, tmp_path, monkeypatch):
    run, data = own_run
    monkeypatch.setattr("jaxad.evaluation.calibration.LARGE_MAP", 1)
    predictor = load_detector(run)
    assert predictor.region_threshold is not None
    file = tmp_path / "file"
    assert cli.main(["export", f"--workdir={run}", f"--output={file}"]) == 0
    record = json.loads((tmp_path / "file.json").read_text())
    # The size of the photographs that it was trained on.
    assert record["input"] == {"shape": ["batch", 75, 110, 1], "dtype": "uint8"}
    assert record["outputs"]["map"]["shape"] == ["batch", 67, 99] and record["tiles"] == [40, 12]
    assert record["region_threshold"] == predictor.region_threshold
    call = jax_export.deserialize(bytearray(file.read_bytes())).call
    paths = [
        *sorted((data / "test/good").iterdir())[:2],
        *sorted((data / "test/box").iterdir())[:2],
    ]
    predictions = predictor.predict(paths)
    pixels = np.stack([one.photograph(channels=1) for one in predictions])
    found = call(pixels)
    assert "reconstruction" not in found and {one.decision for one in predictions} == {True, False}
    for i, one in enumerate(predictions):
        atol = 1e-5 * one.model_map.max()
        np.testing.assert_allclose(found["map"][i], one.model_map, rtol=0, atol=atol)
        np.testing.assert_allclose(found["score"][i], one.score, rtol=1e-5)
        assert found["decision"][i] == one.decision
        np.testing.assert_array_equal(found["mask"][i], one.mask[one.box.slices])
        assert one.mask.any() == one.decision


def test_a_photograph_smaller_than_a_tile(own_run, tmp_path):
    run, _ = own_run
    export(run, tmp_path / "file", photograph_size=(30, 110))
    pixels = np.random.default_rng(0).integers(90, 110, (30, 110, 1), np.uint8)
    (one,) = load_detector(run).predict(pixels)
    call = jax_export.deserialize(bytearray((tmp_path / "file").read_bytes())).call
    found = call(pixels[None])
    np.testing.assert_allclose(found["map"][0], one.model_map, rtol=1e-4)
    np.testing.assert_allclose(found["score"][0], one.score, rtol=1e-5)


def test_what_cannot_be_ends_in_one_sentence(own_run, own_trained, tmp_path, capsys):
    run, _ = own_run
    for asked, said in (("3", "HEIGHT,WIDTH"), ("0,5", "HEIGHT,WIDTH"), ("a,b", "not a,b")):
        size = f"--photograph-size={asked}"
        assert cli.main(["export", f"--workdir={run}", f"--output={tmp_path / 'x'}", size]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(UserError, match=r"no data\.tiles.* leave --photograph-size out"):
        export(own_trained[0], tmp_path / "x", photograph_size=(64, 64))
    assert list(tmp_path.iterdir()) == []


def test_the_program_holds_one_set_of_parameters(own_run):
    """Though a loop runs over tiles: the file does not grow with the photograph."""
    shapes = {}
    for size in ((64, 64), (400, 640)):
        view = View(Box(0, 0, *size), Tiling(32, 8), (32, 32), 3)
        model, decisions = model_of(32), Decisions("bright", "bright:max")
        program = make_tiled_program(model, VARIABLES, view, decisions, smoothing=0.0)
        data, shapes[size] = serialise(program, (*size, 3), VARIABLES)
        assert len(data) < 40_000
        assert shapes[size]["map"] == {"shape": ["batch", *size], "dtype": "float32"}
