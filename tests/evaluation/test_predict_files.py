"""`jaxad predict`: the tables, pictures and maps of any number of files, whatever happens."""

import csv
import errno
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxad.cli import main as cli
from jaxad.data.crop import Box
from jaxad.evaluation import drawing, predict_files as bulk, resize
from jaxad.evaluation.drawing import draw
from jaxad.evaluation.evaluate import evaluate
from jaxad.evaluation.predict import load_detector
from jaxad.evaluation.predict_files import predict_files
from jaxad.evaluation.prediction import Prediction
from jaxad.report import figures
from jaxad.report.content import Scale
from jaxad.report.figures import PREDICTED_COLOUR, outline, overlay


def command(run, output, *inputs, options=()):
    paths = map(str, inputs)
    return cli.main(
        ["predict", f"--workdir={run}", f"--output={output}", "--input", *paths, *options]
    )


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def photos(data, tmp_path):
    """A folder with names that collide, two damaged files and a good one in a sub-folder."""
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    good, box = data / "test" / "good" / "000.png", data / "test" / "box" / "001.png"
    shutil.copy(good, root / "a.png")
    Image.open(box).save(root / "a.tif")
    shutil.copy(box, root / "sub" / "a.png")
    (root / "b.png").write_bytes(b"")
    (root / "c.jpg").write_bytes(good.read_bytes()[:900])
    return root


def test_tables_and_pictures_of_a_folder(calibrated, photos, tmp_path, predictor, capsys):
    out = tmp_path / "deep" / "out"
    assert command(calibrated, out, photos, options=["--tiff"]) == 1
    said = capsys.readouterr()
    assert "5 images, 2 rejected, 1 accepted, 2 unreadable" in said.out
    assert "b.png is empty (0 bytes)" in said.err and "c.jpg cannot be read" in said.err
    assert "images/s" in said.err
    files = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    pictures = ("a.png", "a.tif", "sub/a")
    maps = {f"anomaly_maps/data/test/{name}.tiff" for name in pictures}
    assert files == {
        "scores.csv",
        "predictions.json",
        "report.html",
        *(f"overlays/{name}.png" for name in pictures),
        *maps,
    }
    rows = read_csv(out / "scores.csv")
    assert [os.path.relpath(r["path"], photos) for r in rows] == [
        "a.png",
        "a.tif",
        "b.png",
        "c.jpg",
        "sub/a.png",
    ]
    assert [r["decision"] for r in rows] == ["0", "1", "", "", "1"]
    assert "0 bytes" in rows[2]["error"] and rows[2]["score"] == "" and rows[0]["error"] == ""
    result = json.loads((out / "predictions.json").read_text())
    assert result["complete"] is True and result["schema"] == 1
    assert result["run"] == str(calibrated) and result["checkpoint"] == 0
    assert result["image_threshold"] == predictor.image_threshold
    assert result["heat_map"]["low"] == predictor.scale.low
    for entry, row in zip(result["images"], rows, strict=True):
        assert entry["path"] == row["path"] and (entry["error"] or "") == row["error"]
        if entry["error"]:
            continue
        assert f"{entry['score']:.9g}" == row["score"]
        assert (entry["height"], entry["width"]) == (48, 64)
        assert len(entry["regions"]) == int(row["regions"])
        values = np.asarray(Image.open(out / entry["files"]["map"]))
        assert values.dtype == np.float32 and values.shape == (48, 64)
        (want,) = predictor.predict(entry["path"])
        np.testing.assert_allclose(values, want.map, rtol=2e-5)  # alone, not in a batch
        _, count = ndimage.label(values > result["pixel_threshold"], np.ones((3, 3)))
        assert len(entry["regions"]) == count
        # Where the map says its maximum is, in whole pixels of the original.
        assert np.argmax(values) == entry["maximum"]["y"] * 64 + entry["maximum"]["x"]
        for region in entry["regions"]:
            box = values[
                region["y"] : region["y"] + region["height"],
                region["x"] : region["x"] + region["width"],
            ]
            assert box.shape == (region["height"], region["width"])
            assert f"{box.max():.9g}" == f"{region['peak']:.9g}"


def test_what_the_threshold_promises_is_said_and_written(calibrated, data, tmp_path, capsys):
    assert command(calibrated, tmp_path / "out", data / "test" / "good" / "000.png") == 0
    said = capsys.readouterr().out
    saved = json.loads((calibrated / "calibration.json").read_text())
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())["calibration"]
    assert said.startswith("1 image, 1 accepted; threshold ")
    assert written == {key: saved[key] for key in written} and written["held_out"] == 5
    assert "it comes from 5 good images, which were held out of training: 17 % of new" in said
    assert "5 % (evaluate.image_false_positive_rate) cannot be promised" in said
    by_hand = ["--threshold=0.5"]
    assert command(calibrated, tmp_path / "out", data / "test" / "good", options=by_hand) == 0
    assert "(set by hand: 0.5)" in (said := capsys.readouterr().out) and "comes from" not in said


def test_pictures_of_earlier_calls_are_counted(calibrated, data, tmp_path, capsys):
    good = data / "test" / "good"
    assert command(calibrated, tmp_path / "out", good) == 0
    assert "of other calls" not in capsys.readouterr().err
    assert command(calibrated, tmp_path / "out", good / "000.png", good / "001.png") == 0
    assert "also holds 2 pictures and maps of other calls" in capsys.readouterr().err


def test_other_brightness_and_size_are_noted(predictor, tiny, calibrated, tmp_path, capsys):
    picture = tiny.stripes(100)
    bright = np.uint8(np.minimum(picture.astype(int) + 40, 255))
    dark = picture // 2
    found = predictor.predict([picture, bright, dark, tiny.stripes(100, size=(48, 90))])
    assert not found[0].notes
    assert [n.partition(" ")[0] for n in found[1].notes + found[2].notes] == ["brighter", "darker"]
    assert found[3].notes == ("48 x 90 pixels (height x width), trained on 48 x 64",)
    file = tiny.save(tmp_path / "bright.png", bright)
    assert command(calibrated, tmp_path / "out", file) == 0
    assert "1 image has a brightness or size" in capsys.readouterr().out
    (row,) = read_csv(tmp_path / "out" / "scores.csv")
    assert row["verdict"] == "rejected" and float(row["threshold"]) > 0
    assert row["notes"].startswith("brighter than any training image: mean 0.")


def test_colour_becomes_luma_for_a_gray_run(tiny, tmp_path):
    data = tiny.write_data(tmp_path / "data", channels=1)
    run = tiny.fit(data, tmp_path / "run", data__channels=1)
    predictor = load_detector(run)
    colour = tiny.stripes(300)
    file = tiny.save(tmp_path / "colour.png", colour)
    luma = np.asarray(Image.fromarray(colour).convert("L"))
    scores = [p.score for p in predictor.predict([colour, luma, luma[..., None], file])]
    assert len(set(scores)) == 1
    assert command(run, tmp_path / "out", file) == 0
    assert Image.open(tmp_path / "out" / "overlays" / "colour.png").size == (64, 48)


def test_sixteen_bits_are_read_with_the_range_of_the_run(tiny, tmp_path):
    data = tiny.write_data(tmp_path / "data", deep=True)
    run = tiny.fit(data, tmp_path / "run", data__channels=1, data__range_16bit="12")
    result = evaluate(run)
    assert result["image_auroc"] == 1.0
    predictor = load_detector(run)
    assert predictor.range_16bit == (0.0, 4095.0)
    scores = [f"{p.score:.9g}" for p in predictor.predict(data / "test")]
    assert scores == [row["score"] for row in read_csv(run / "scores.csv")]
    assert command(run, tmp_path / "out", data / "test") == 0
    picture = np.asarray(Image.open(tmp_path / "out" / "overlays" / "good" / "000.png"))
    # Read with the full range, the photograph under the map would be black.
    assert picture.mean() > 15


def test_any_size_and_shape_is_answered_at_its_own_size(predictor, tiny, tmp_path):
    sizes = [(1, 1), (1, 300), (7, 5), (500, 31), (1500, 1100)]
    found = predictor.predict([tiny.stripes(1, size=size) for size in sizes])
    assert [p.map.shape for p in found] == sizes
    for prediction, (height, width) in zip(found, sizes, strict=True):
        assert np.isfinite(prediction.map).all()
        for region in prediction.regions:
            assert region.x + region.width <= width and region.y + region.height <= height
    file = tiny.save(tmp_path / "large.png", tiny.stripes(1, size=(1500, 1100)))
    result = predict_files(predictor.run.path, [file], tmp_path / "out", tiff=True)
    assert (result["images"][0]["height"], result["images"][0]["width"]) == (1500, 1100)
    values = np.asarray(Image.open(tmp_path / "out" / result["images"][0]["files"]["map"]))
    # One image alone: sums in another order than among five.
    np.testing.assert_allclose(values, found[-1].map, rtol=2e-5)


def test_where_held_out_images_are_gone_scores_go_on_without_decisions(
    run, data, predictor, tmp_path, capsys, edited
):
    with edited(run / "config.json") as saved:
        saved["data"]["root"] = str(tmp_path / "was here")
    lost = load_detector(run)
    assert lost.image_threshold is lost.pixel_threshold is lost.scale is None
    assert "was here does not exist" in lost.reason
    (prediction,) = lost.predict(data / "test" / "box" / "000.png")
    assert prediction.decision is prediction.mask is None and prediction.regions == ()
    assert prediction.score == predictor.predict(data / "test" / "box" / "000.png")[0].score
    assert not (run / "calibration.json").exists()

    assert command(run, tmp_path / "out", data / "test") == 0
    assert capsys.readouterr().err.count("no threshold") == 1
    result = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert result["image_threshold"] is None and "was here" in result["reason"]
    assert result["heat_map"]["from"] == "the first 4 images of this call"
    assert result["counts"]["undecided"] == 8
    assert {row["decision"] for row in read_csv(tmp_path / "out" / "scores.csv")} == {""}

    found = load_detector(run, data_root=str(data))
    assert found.image_threshold == predictor.image_threshold and found.reason is None


def test_predicting_again_changes_no_byte_even_with_the_output_inside(calibrated, photos):
    out = photos / "results"
    command(calibrated, out, photos, options=["--tiff"])
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    command(calibrated, out, photos, options=["--tiff"])
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_the_overlay_is_the_map_on_the_runs_scale_with_the_region_outlined(
    calibrated, predictor, photos, tmp_path
):
    command(calibrated, tmp_path / "out", photos / "a.tif")
    picture = np.asarray(Image.open(tmp_path / "out" / "overlays" / "a.png"))
    (prediction,) = predictor.predict(photos / "a.tif")
    gray = np.asarray(Image.open(photos / "a.tif").convert("L"))[..., None]
    scale = predictor.scale
    want = overlay(gray, prediction.map, low=scale.low, high=scale.high)
    want = outline(want, prediction.mask, colour=PREDICTED_COLOUR)
    np.testing.assert_array_equal(picture, want)


def test_strips_make_the_same_picture_as_the_whole(monkeypatch):
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 256, (50, 40, 1), dtype=np.uint8)
    heat = rng.random((50, 40), dtype=np.float32)
    mask = np.zeros((50, 40), bool)
    mask[10:30, 5:20] = True
    mask[12, 3] = mask[48:, 37:] = True
    whole = draw(gray, heat, mask, Scale(0.2, 0.8))
    for pixels in (1, 7 * 40, 50 * 40):
        for module in (drawing, resize, figures):
            monkeypatch.setattr(module, "_STRIP", pixels)
        np.testing.assert_array_equal(draw(gray, heat, mask, Scale(0.2, 0.8)), whole)
        for width in (1, 3):
            want = np.zeros((50, 40, 3), np.uint8)
            want[mask & ~ndimage.binary_erosion(mask, iterations=width)] = 9
            found = outline(np.zeros_like(want), mask, colour=(9, 9, 9), width=width)
            np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("size", [(70, 30), (9, 64), (5, 7)])
@pytest.mark.parametrize("thresholds", [(0.9, None), (0.6, 0.9), (0.6, 2.0), (2.0, None)])
def test_a_map_of_which_strips_are_made_is_that_of_the_whole(size, thresholds, monkeypatch):
    rng = np.random.default_rng(1)
    values = rng.random((9, 7), dtype=np.float32)
    whole = np.asarray(Image.fromarray(values).resize(size[::-1], Image.Resampling.BILINEAR))

    def found(decision):
        made = Prediction(
            path="a", size=size, box=Box(0, 0, *size), score=1.0, decision=decision,
            model_map=values, pixel_threshold=thresholds[0], region_threshold=thresholds[1],
        )  # fmt: skip
        return made, (made.maximum, made.components, made.mask.tobytes())

    expected = [found(decision)[1] for decision in (True, False, None)]
    monkeypatch.setattr(resize, "_LARGE", 1)
    for strip in (1, 4 * size[0]):
        monkeypatch.setattr(resize, "_STRIP", strip)
        for decision, want in zip((True, False, None), expected, strict=True):
            made, of_it = found(decision)
            assert isinstance(made.by_strips, resize.EnlargedMap) == (size[0] >= 9)
            assert of_it == want
            np.testing.assert_array_equal(made.map, whole)
            np.testing.assert_array_equal(made.by_strips[2:5, 1:3], whole[2:5, 1:3])
            monkeypatch.setattr(resize, "_BLOCK", 2 * size[1])
            blocks = np.concatenate([block for _, block in resize.row_blocks(made.by_strips)])
            np.testing.assert_array_equal(blocks, whole)
            gray = rng.integers(0, 256, (*size, 1), dtype=np.uint8)
            pictures = [draw(gray, m, made.mask, Scale(0.2, 0.8)) for m in (whole, made.by_strips)]
            np.testing.assert_array_equal(*pictures)
    assert expected[0][0].value == whole.max() == max(c.peak for c in expected[0][1])


def test_equal_highest_pixels_give_the_first_row_by_row(monkeypatch):
    values = np.zeros((6, 8), np.float32)
    values[2, 6] = values[3, 0] = 1.0
    monkeypatch.setattr(resize, "_STRIP", 1)
    made = Prediction(path="a", size=(6, 8), box=Box(0, 0, 6, 8), score=1.0, model_map=values)
    assert made.maximum == (6, 2, 1.0)


@pytest.mark.slow
def test_a_large_image_of_sixteen_bits_takes_few_bytes_a_pixel(calibrated, tmp_path):
    """With the map as a whole, and copies of it, they were over twenty."""
    peaks = []
    for side in (100, 6000):
        picture = np.full((side, side), 9000, np.uint16)
        picture[side // 2 :, side // 3 :] = 60000
        Image.fromarray(picture).save(tmp_path / f"{side}.png", compress_level=1)
        words = [
            "-m",
            "jaxad",
            "predict",
            f"--workdir={calibrated}",
            f"--output={tmp_path / 'out'}",
        ]
        child = subprocess.Popen([sys.executable, *words, f"--input={tmp_path / f'{side}.png'}"])
        _, status, used = os.wait4(child.pid, 0)
        assert status == 0
        peaks.append(used.ru_maxrss * 1024)
    assert peaks[1] - peaks[0] < 11 * 6000 * 6000, peaks


def test_a_small_budget_of_pixels_changes_nothing_but_the_order_of_work(
    calibrated, data, tmp_path, monkeypatch
):
    many = predict_files(calibrated, [data / "test"], tmp_path / "a", tiff=True)
    monkeypatch.setattr(bulk, "_PIXELS_IN_FLIGHT", 1)
    one = predict_files(calibrated, [data / "test"], tmp_path / "b", tiff=True)
    assert one == many


def test_options_leave_pictures_out_and_several_inputs_are_kept_apart(
    calibrated, data, tmp_path, capsys
):
    kinds = [data / "test" / "box", data / "test" / "good"]
    assert command(calibrated, tmp_path / "a", *kinds, options=["--no-overlays"]) == 0
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == ["predictions.json", "report.html", "scores.csv"]
    # --input may also be repeated.
    options = [f"--input={kinds[1]}", "--tiff", "--config.evaluate.batch_size=3"]
    assert command(calibrated, tmp_path / "b", kinds[0], options=options) == 0
    assert (tmp_path / "b" / "overlays" / "box" / "000.png").exists()
    assert (tmp_path / "b" / "anomaly_maps" / "data" / "test" / "good" / "003.tiff").exists()
    words = ["predict", f"--input={kinds[0]}", str(kinds[1]), f"--workdir={calibrated}"]
    assert cli.main([*words, f"--output={tmp_path / 'c'}"]) == 0
    tables = [(tmp_path / name / "scores.csv").read_text() for name in "ac"]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    "name", [b"tab\t\n.png", b"\xff\xfe.png", "ß€ 😀.png".encode(), b"a,b.png"]
)
def test_odd_file_names(calibrated, data, tmp_path, name):
    folder = tmp_path / "odd"
    folder.mkdir()
    target = os.path.join(os.fsencode(folder), name)
    try:
        shutil.copy(data / "test" / "good" / "000.png", os.fsdecode(target))
    except OSError:
        pytest.skip("this file system refuses the name")
    assert command(calibrated, tmp_path / "out", folder) == 0
    (row,) = read_csv(tmp_path / "out" / "scores.csv")
    (entry,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]
    assert entry["path"] == row["path"] and row["error"] == ""
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 1


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (["nothing"], "out", "nothing does not exist"),
        (["empty"], "out", "empty holds no image"),
        (["photos"], "photos", "would be written over"),
        (["photos"], "file/out", "file is a regular file"),
        (["photos"], "file", "file is a regular file"),
    ],
)
def test_user_errors_are_one_sentence(
    calibrated, photos, tmp_path, monkeypatch, capsys, inputs, output, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert command(calibrated, output, *inputs) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and said.startswith("jaxad: ") and "\n" not in said


def test_a_folder_that_is_no_run_and_an_unknown_checkpoint(calibrated, photos, tmp_path, capsys):
    assert command(photos, tmp_path / "out", photos) == 2
    assert "is not a run folder" in capsys.readouterr().err
    assert command(calibrated, tmp_path / "out", photos, options=["--checkpoint=9"]) == 2
    assert "no checkpoint '9'" in capsys.readouterr().err


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(
    calibrated, data, tmp_path, monkeypatch, capsys
):
    save, saved = Image.Image.save, []

    def fill_up(self, path, *args, **options):
        if isinstance(path, io.BytesIO):  # a picture of the page, in memory
            return save(self, path, *args, **options)
        if len(saved) >= 3:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        saved.append(path)
        save(self, path, *args, **options)

    monkeypatch.setattr(Image.Image, "save", fill_up)
    assert command(calibrated, tmp_path / "out", data / "test") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "could not be written: No space left on device" in said
    pictures = [p for p in (tmp_path / "out" / "overlays").rglob("*") if p.is_file()]
    assert len(pictures) == 3
    for picture in pictures:
        Image.open(picture).load()
    result = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert result["complete"] is False and len(result["images"]) <= 3


def test_an_interruption_leaves_valid_tables_of_what_was_done(
    calibrated, data, tmp_path, monkeypatch, capsys
):
    update = bulk.Progress.update

    def interrupt(self, done, note=""):
        update(self, done, note)
        if done == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(bulk.Progress, "update", interrupt)
    assert command(calibrated, tmp_path / "out", data / "test") == 130
    assert "hold what was done so far" in capsys.readouterr().err
    result = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert result["complete"] is False and result["counts"]["images"] == 8
    rows = read_csv(tmp_path / "out" / "scores.csv")
    assert len(rows) == len(result["images"]) == 5
    for entry in result["images"]:
        Image.open(tmp_path / "out" / entry["files"]["overlay"]).load()


def test_tables_are_there_before_the_end(calibrated, data, tmp_path, monkeypatch):
    written = []
    write = bulk._write_tables
    monkeypatch.setattr(bulk, "_SECONDS_BETWEEN_TABLES", 0.0)

    def record(output, head, rows, total):
        written.append(len(rows))
        return write(output, head, rows, total)

    monkeypatch.setattr(bulk, "_write_tables", record)
    predict_files(calibrated, [data / "test" / "good"], tmp_path / "out", overlays=False)
    assert written == [0, 1, 2, 3, 4, 4]


def test_a_file_that_vanishes_meanwhile_is_listed(calibrated, photos, tmp_path, monkeypatch):
    again = bulk._again

    def vanish(prediction, channels):
        if prediction.path.endswith("a.tif"):
            os.unlink(prediction.path)
        return again(prediction, channels)

    monkeypatch.setattr(bulk, "_again", vanish)
    result = predict_files(calibrated, [photos], tmp_path / "out")
    (entry,) = [e for e in result["images"] if e["path"].endswith("a.tif")]
    assert "does not exist" in entry["error"] and result["counts"]["unreadable"] == 3


def test_a_tilde_is_the_home_folder(calibrated, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "here").symlink_to(photos)
    (tmp_path / "run").symlink_to(calibrated)
    monkeypatch.chdir(tmp_path)
    there = predict_files("~/run", ["~/here"], "~/out")
    assert there["counts"]["images"] == 5 and (tmp_path / "out/scores.csv").is_file()
    assert len(load_detector("~/run").predict("~/here")) == 5
    assert not (tmp_path / "~").exists()


def test_a_broken_link_and_a_file_that_is_gone_are_rows(calibrated, photos, tmp_path):
    gone = tmp_path / "gone.png"
    (photos / "link.png").symlink_to(gone)
    result = predict_files(calibrated, [photos, photos / "a.png", gone], tmp_path / "out")
    errors = {
        os.path.basename(e["path"]): e["error"]
        for e in result["images"]
        if "gone" in (e["error"] or "")
    }
    assert errors == {
        "link.png": f"{photos / 'link.png'} is a link to {gone}, which does not exist",
        "gone.png": f"{gone} does not exist",
    }
    assert result["counts"]["unreadable"] == 4 and result["counts"]["images"] == 7


@pytest.mark.parametrize("link", ["overlays", "overlays/good", "anomaly_maps"])
def test_no_link_is_followed_out_of_the_output_folder(calibrated, data, tmp_path, link, capsys):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / link).parent.mkdir(parents=True)
    (tmp_path / "out" / link).symlink_to(tmp_path / "elsewhere")
    assert command(calibrated, tmp_path / "out", data / "test", options=["--tiff"]) == 2
    assert f"out/{link} leads out of --output" in capsys.readouterr().err
    assert not list((tmp_path / "elsewhere").iterdir())
