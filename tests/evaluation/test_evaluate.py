import csv
import errno
import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from sklearn.metrics import roc_auc_score

import jaxad
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.evaluate import component_notes, evaluate
from jaxad.evaluation.map_metrics import Components
from jaxad.evaluation.predict import load_detector
from jaxad.evaluation.presentation import images_to_compare, images_to_show
from jaxad.evaluation.resize import at_size, resize_map
from jaxad.report.content import ScoreRow
from jaxad.run.config import with_keys
from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder

FILES = ("metrics.json", "scores.csv", "calibration.json", "report.html", "figures/cases.npz")


def read_scores(run):
    with open(run / "scores.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    run = shutil.copytree(trained[0], tmp_path_factory.mktemp("evaluated") / "run")
    return run, evaluate(run)


def test_evaluating_again_changes_no_byte(evaluated):
    run, _ = evaluated
    files = [*FILES, *(f"figures/{f.name}" for f in (run / "figures").glob("*.png"))]
    assert len(files) == len(FILES) + 8
    before = {name: (run / name).read_bytes() for name in files}
    evaluate(run)
    for name in files:
        assert (run / name).read_bytes() == before[name], name


def test_figures_are_those_of_the_scores_and_thresholds_written(evaluated):
    run, result = evaluated
    assert result == RunFolder(run).read_json(run / "metrics.json")
    rows = read_scores(run)
    assert [row["path"] for row in rows] == [
        f"test/{kind}/{i:03}.png" for kind in ("box", "good") for i in range(4)
    ]
    labels = [int(row["label"]) for row in rows]
    scores = [float(row["score"]) for row in rows]
    assert labels == [1] * 4 + [0] * 4
    # Nine digits of the csv keep the order of float32 scores, so the area is the same number.
    assert result["image_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    for row, score in zip(rows, scores, strict=True):
        assert int(row["decision"]) == (score > result["image_threshold"])
        assert row["verdict"] == ("rejected" if row["decision"] == "1" else "accepted")
        assert float(row["threshold"]) == pytest.approx(result["image_threshold"], rel=1e-8)
    assert result["counts"]["images"] == 8 and result["counts"]["pixels"] == 8 * 32 * 32
    assert result["maps"].keys() == {"l1", "ssim", "l1*ssim"}
    assert result["scores"][result["primary_score"]]["image_auroc"] == result["image_auroc"]
    assert result["maps"]["l1*ssim"]["pixel_auroc"] == result["pixel_auroc"]
    calibration = json.loads((run / "calibration.json").read_text())
    assert calibration["image_threshold"] == result["image_threshold"]


def test_at_the_original_resolution_pixels_are_judged_against_the_masks_as_they_are(run, data):
    result = evaluate(run, overrides={"evaluate.resolution": "original"})
    assert result["resolution"] == "original"
    assert result["counts"]["pixels"] == 8 * 48 * 64  # non-square, as the files are
    detector = Detector.load(run)
    assert detector.config.evaluate.resolution == "original"  # kept, because it worked
    # An independent way to the same figure: scikit-learn on maps resized by Pillow.
    maps, masks = [], []
    for kind in ("box", "good"):
        for i in range(4):
            picture = Image.open(data / "test" / kind / f"{i:03}.png")
            small = np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR))
            heat = Image.fromarray(detector(small[None]).maps["l1*ssim"][0])
            maps.append(np.asarray(heat.resize(picture.size, Image.Resampling.BILINEAR)))
            truth = data / "ground_truth" / kind / f"{i:03}_mask.png"
            blank = np.zeros((48, 64), np.uint8)
            masks.append((np.asarray(Image.open(truth)) if truth.exists() else blank) > 0)
    area = roc_auc_score(np.ravel(masks), np.ravel(maps))
    # One image per call and eight in one are the same program here, so only ties could differ.
    assert result["pixel_auroc"] == pytest.approx(area, abs=1e-6)


def test_images_of_several_sizes_and_without_masks(tiny, tmp_path):
    data = tiny.write_data(tmp_path / "data", masks=False, train=8)
    tiny.save(data / "test" / "box" / "tall.png", tiny.stripes(7, size=(90, 30), defect=True))
    run = tiny.fit(data, tmp_path / "run", evaluate__resolution="original")
    result = evaluate(run)
    assert result["counts"]["images_without_mask"] == 5
    assert result["pixel_auroc"] is None and "mask" in result["undefined"]["pixel_auroc"]
    assert result["image_auroc"] == 1.0
    assert "mask" in (run / "report.html").read_text()


def test_defects_smaller_than_a_pixel_are_judged_and_told(run, data, tiny, tmp_path):
    """32 columns see every other one of 64: a defect of one pixel is missed, a long one is not."""
    moved = shutil.copytree(data, tmp_path / "small")
    for file in (moved / "ground_truth").rglob("*.png"):
        mask = np.zeros((48, 64), np.uint8)
        mask[10, 20] = mask[20, 4:12] = 255
        tiny.save(file, mask)
    result = evaluate(run, data_root=str(moved))
    counts = result["counts"]
    assert counts["mask_components_in_files"] == counts["defect_components"] == 8
    assert counts["mask_components_kept_as_a_pixel"] == 4
    assert result["pixel_auroc"] is not None and len(result["notes"]) == 1
    assert "4 of 8 defects" in result["notes"][0] and "image_size=64,64" in result["notes"][0]
    assert "4 of 8 defects" in (run / "report.html").read_text()
    original = evaluate(run, data_root=str(moved), overrides={"evaluate.resolution": "original"})
    assert original["counts"]["defect_components"] == 8 and original["notes"] == []


def test_damaged_test_images_and_masks_are_all_named_and_may_be_left_out(run, data, tmp_path):
    moved = shutil.copytree(data, tmp_path / "damaged")
    images = [moved / "test/box/001.png", moved / "test/good/002.png"]
    masks = [moved / "ground_truth/box/000_mask.png", moved / "ground_truth/box/002_mask.png"]
    for file in images + masks:
        file.write_bytes(b"no image")
    named = (
        r"2 of 8 images cannot be read: .*box/001\.png.*good/002\.png.*; 2 masks cannot be read: "
        r".*box/000_mask\.png.*box/002_mask\.png.*; restore them, or .* --skip-unreadable"
    )
    with pytest.raises(UserError, match=named):
        evaluate(run, data_root=str(moved))
    result = evaluate(run, data_root=str(moved), overrides={"evaluate.skip_unreadable": True})
    (note,) = result.pop("notes")
    names = ", ".join(f"test/{name}.png" for name in ("box/000", "box/001", "box/002", "good/002"))
    assert f"left out of every figure: 4 ({names})" in note
    assert note in (run / "report.html").read_text()
    assert result["counts"].pop("unreadable_images") == 4
    assert len(read_scores(run)) == result["counts"]["images"] == 4
    # The figures are those of a folder without these images.
    for name in ("box/000", "box/001", "box/002"):
        (moved / f"ground_truth/{name}_mask.png").unlink()
        (moved / f"test/{name}.png").unlink()
    (moved / "test/good/002.png").unlink()
    without = evaluate(run, data_root=str(moved))
    assert without.pop("notes") == [] and without["counts"].pop("unreadable_images") == 0
    assert result == without
    for file in (moved / "test").rglob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(UserError, match="4 of 4 images cannot be read"):
        evaluate(run, data_root=str(moved))


@pytest.mark.parametrize("memory", [2048, 0])
def test_masks_that_mark_most_of_an_image_or_nothing_are_named(run, data, tiny, tmp_path, memory):
    moved = shutil.copytree(data, tmp_path / "odd")
    # What good images have is empty; of the others one marks 26 rows of 48, one 24, one none.
    for name, rows in (("box/000", 26), ("box/001", 24), ("box/002", 0), ("good/000", 0)):
        mask = np.zeros((48, 64), np.uint8)
        mask[:rows] = 255
        tiny.save(moved / f"ground_truth/{name}_mask.png", mask)
    limit = {"evaluate.memory_limit_mb": memory}
    notes = evaluate(run, data_root=str(moved), overrides=limit)["notes"]
    assert notes == [
        "anomalous images whose mask marks nothing: 1 (test/box/002.png)",
        "masks that mark more than half of their image (inverted?): 1 (test/box/000.png)",
    ]


def test_test_images_that_were_trained_on_are_named(run, data, tmp_path):
    moved = shutil.copytree(data, tmp_path / "leak")
    Image.open(moved / "train/good/003.png").save(moved / "test/good/999.bmp")
    result = evaluate(run, data_root=str(moved))
    (note,) = result["notes"]
    how = "equal to the last pixel as the model sees them"
    assert (
        f"1 of 9 test images are images that the run was trained on or calibrated with, {how}"
        in note
    )
    assert "test/good/999.bmp is train/good/003.png" in note
    assert result["counts"]["test_images_seen_in_training"] == 1
    assert "1 of 9 test images are images" in (run / "report.html").read_text()
    # A run from before there were digests of pixels: only files of equal content.
    record = json.loads((run / "data.json").read_text())
    for key in ("pixels", "content_sha256"):
        del record[key]
    (run / "data.json").write_text(json.dumps(record))
    assert evaluate(run, data_root=str(moved))["counts"]["test_images_seen_in_training"] == 0
    shutil.copy(moved / "train/good/003.png", moved / "test/good/999.bmp")
    (note,) = evaluate(run, data_root=str(moved))["notes"]
    assert "calibrated with, byte for byte (first test/good/999.bmp" in note


def test_test_images_that_are_good_and_defective_are_named(run, data, tmp_path):
    moved = shutil.copytree(data, tmp_path / "both")
    shutil.copy(moved / "test/box/001.png", moved / "test/good/999.png")
    (note,) = evaluate(run, data_root=str(moved))["notes"]
    assert note.startswith("pictures good and defective, equal to the last pixel as the model sees")
    assert "1, first test/box/001.png, test/good/999.png" in note


def test_only_good_test_images_leave_figures_undefined_and_nothing_else(run, data, tmp_path):
    moved = shutil.copytree(data, tmp_path / "good only")
    shutil.rmtree(moved / "test" / "box")
    shutil.rmtree(moved / "ground_truth")
    result = evaluate(run, data_root=str(moved))
    assert result["image_auroc"] is None and "anomalous" in result["undefined"]["image_auroc"]
    assert result["counts"] | {"good": 4, "anomalous": 0} == result["counts"]
    assert {row["decision"] for row in read_scores(run)} <= {"0", "1"}
    assert (run / "report.html").stat().st_size > 1000


def test_no_test_images_is_one_sentence(run, data, tmp_path):
    moved = shutil.copytree(data / "train", tmp_path / "data" / "train")
    with pytest.raises(UserError, match=r"holds no test images.*jaxad predict"):
        evaluate(run, data_root=str(moved.parent))
    assert not (run / "metrics.json").exists()


def test_without_held_out_images_there_is_no_threshold_but_a_reason(tiny, data, tmp_path):
    run = tiny.fit(data, tmp_path / "run", data__holdout=0.0, data__calibration="held_out")
    result = evaluate(run)
    assert result["image_threshold"] is None and result["pixel_threshold"] is None
    assert result["image_auroc"] is not None
    assert {row["decision"] for row in read_scores(run)} == {""}
    assert "data.holdout=0" in json.loads((run / "calibration.json").read_text())["reason"]
    assert "data.holdout=0" in (run / "report.html").read_text()


def test_other_training_images_than_the_runs_are_refused(run, data, tmp_path):
    moved = shutil.copytree(data, tmp_path / "moved")
    held_out = RunFolder(run).read_json(run / "data.json")["holdout"][0]
    evaluate(run, data_root=str(moved))
    shutil.copy(data / "test/box/000.png", moved / held_out)
    before = (run / "metrics.json").read_bytes()
    sentence = rf"image files have changed since .*: {held_out} .* restore them"
    with pytest.raises(UserError, match=sentence):
        evaluate(run, data_root=str(moved))
    assert (run / "metrics.json").read_bytes() == before
    # Without a calibration there are scores and no thresholds.
    (run / "calibration.json").unlink()
    predictor = load_detector(run, data_root=str(moved))
    assert predictor.image_threshold is None and held_out in predictor.reason


def test_a_data_set_that_moved_is_found_by_its_new_root(run, data, tmp_path, edited):
    here = evaluate(run)
    with edited(run / "config.json") as saved:
        saved["data"]["root"] = str(tmp_path / "was here")
    (run / "calibration.json").unlink()
    with pytest.raises(UserError, match="was here does not exist"):
        evaluate(run)
    moved = shutil.copytree(data, tmp_path / "is here now")
    assert evaluate(run, data_root=str(moved)) == here


def test_missing_held_out_image_is_one_sentence(run, data, tmp_path):
    moved = shutil.copytree(data, tmp_path / "data")
    name = RunFolder(run).read_json(run / "data.json")["holdout"][0]
    (moved / name).unlink()
    with pytest.raises(UserError, match=f"held-out image {name} is no longer"):
        evaluate(run, data_root=str(moved))


def test_overrides_are_kept_when_they_worked_and_only_then(run, tmp_path):
    before = (run / "config.json").read_bytes()
    for overrides in (
        {"evaluate.primary_score": "nlll"},
        {"evaluate.aupro_limit": "2"},
        {"evaluate.smoothing": "soft"},
        {"evaluate.smoothing": "1", "model.components": "3"},
    ):
        with pytest.raises(UserError):
            evaluate(run, overrides=overrides)
        assert (run / "config.json").read_bytes() == before
    result = evaluate(run, overrides={"evaluate.primary_score": "nll", "evaluate.smoothing": "0"})
    assert result["primary_score"] == "nll"
    assert RunFolder(run).read_config().evaluate.smoothing == 0.0
    assert evaluate(run) == result
    assert json.loads((run / "calibration.json").read_text())["primary_score"] == "nll"


def test_what_detection_alone_reads_may_change_and_is_calibrated_anew(run, data):
    before = evaluate(run)
    calibration = json.loads((run / "calibration.json").read_text())
    assert calibration["model"] == {"ssim_window": 11}
    parameters = RunFolder(run).read_config().model.options["components"]
    after = evaluate(run, overrides={"model.ssim_window": "3"})
    assert after["maps"]["ssim"] != before["maps"]["ssim"]
    assert after["maps"]["l1"] == before["maps"]["l1"]
    config = RunFolder(run).read_config()
    options = config.model.options
    assert (options["ssim_window"], options["components"]) == (3, parameters)
    assert json.loads((run / "calibration.json").read_text())["model"] == {"ssim_window": 3}
    # The run goes on as its own, with either value.
    for window in (3, 11):
        jaxad.train(with_keys(config, {"model.ssim_window": window}), run)
    # And a key that training read is still refused.
    with pytest.raises(
        UserError, match=r"only evaluate\.\*, data\.limit_megapixels, model\.ssim_window can"
    ):
        evaluate(run, overrides={"model.components": "3"})


def test_masks_that_do_not_fit_are_all_named_and_never_left_out(run, data, tmp_path, tiny):
    moved = shutil.copytree(data, tmp_path / "data")
    mask = np.full((48, 64), 255, np.uint8)
    tiny.save(moved / "ground_truth" / "good" / "001_mask.png", mask)
    tiny.save(moved / "ground_truth" / "good" / "000_mask.png", mask[:40] * 0)
    tiny.save(moved / "ground_truth" / "box" / "000_mask.png", mask[:, :60])
    (moved / "ground_truth" / "box" / "001_mask.png").write_bytes(b"no image")
    for skip in (True, False):
        with pytest.raises(UserError) as refused:
            evaluate(run, data_root=str(moved), overrides={"evaluate.skip_unreadable": skip})
        for named in (
            "good/000_mask.png is 40 x 64",
            "box/000_mask.png is 48 x 60",
            "box/001_mask.png is not an image",
        ):
            assert named in str(refused.value)
        assert re.search(
            r"good/001_mask\.png marks a defect on .*good/001\.png", str(refused.value)
        )


def test_unreadable_test_images_are_all_named(run, data, tmp_path):
    moved = shutil.copytree(data, tmp_path / "data")
    for name in ("000", "002"):
        (moved / "test" / "good" / f"{name}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"good/000\.png is empty.*good/002\.png is empty"):
        evaluate(run, data_root=str(moved))


def test_figures_of_images_with_one_name_are_all_kept(run, data, tmp_path, tiny):
    moved = shutil.copytree(data, tmp_path / "data")
    Image.open(moved / "test" / "good" / "000.png").save(moved / "test" / "good" / "000.jpg")
    evaluate(run, data_root=str(moved))
    names = sorted(f.name for f in (run / "figures").glob("*.png"))
    assert len(names) == 9
    assert {"test_good_000.jpg.png", "test_good_000.png.png", "good_001.png"} <= set(names)


def test_maps_are_resized_in_their_own_units():
    ramp = np.linspace(-3e4, 7e4, 4, dtype=np.float32)[None].repeat(3, axis=0)
    large = resize_map(ramp, (9, 16))
    assert large.shape == (9, 16) and large.dtype == np.float32
    assert large.min() == ramp.min() and large.max() == ramp.max()
    np.testing.assert_allclose(large.mean(), ramp.mean(), rtol=1e-5)
    assert at_size(ramp, None) is ramp and at_size(ramp, np.zeros((3, 4), bool)) is ramp


ROWS = st.lists(
    st.tuples(st.sampled_from(["good", "a", "b"]), st.floats(0, 1)), min_size=1, max_size=12
)


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, limit=st.integers(0, 14))
def test_choices_of_images_are_bounded_distinct_and_complete_where_there_is_room(rows, limit):
    rows = [ScoreRow(str(i), int(k != "good"), k, s) for i, (k, s) in enumerate(rows)]
    for choose in (images_to_show, images_to_compare):
        chosen = choose(rows, limit)
        assert len(chosen) == len(set(chosen)) <= limit
        if limit >= len(rows):
            assert len(chosen) == len(rows)
        if limit >= 3:
            kinds = {row.defect for row in rows}
            assert {rows[i].defect for i in chosen} == kinds or len(kinds) > limit


def test_a_file_name_that_is_no_text_does_not_stop_an_evaluation(run, data, tmp_path):
    moved = shutil.copytree(data, tmp_path / "data")
    odd = moved / "test" / "good" / os.fsdecode(b"\xff.png")
    try:
        shutil.copy(moved / "test" / "good" / "000.png", odd)
    except OSError:
        pytest.skip("this file system refuses the name")
    assert evaluate(run, data_root=str(moved))["counts"]["images"] == 9
    assert "test/good/\\xff.png" in [row["path"] for row in read_scores(run)]


def test_a_full_disk_in_the_midst_leaves_all_files_of_the_last_evaluation(run, monkeypatch):
    evaluate(run)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    original = pathlib.Path.write_text

    def full(path, text, **options):
        if "report.html" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return original(path, text, **options)

    monkeypatch.setattr(pathlib.Path, "write_text", full)
    with pytest.raises(UserError, match=r"report.html could not be written: No space left"):
        evaluate(run, overrides={"evaluate.smoothing": 0.5})
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_good_test_images_of_another_brightness_are_told(run, data, tmp_path):
    darker = shutil.copytree(data, tmp_path / "darker")
    for file in (darker / "test/good").iterdir():
        Image.fromarray(np.asarray(Image.open(file)) // 2).save(file)
    told = "4 of 4 good test images are brighter or darker than any training image (first test/good"
    assert any(note.startswith(told) for note in evaluate(run, data_root=str(darker))["notes"])
    assert not any("brighter or darker" in note for note in evaluate(run)["notes"])


def test_defects_that_touch_at_the_models_size_are_told(trained):
    detector = Detector.load(trained[0])
    (note,) = component_notes(detector, Components(37, 0, 1), {"regions": 36})
    assert "37 defects (connected components) in their files and 36 at 32 x 32 pixels" in note
    assert component_notes(detector, Components(36, 0, 1), {"regions": 36}) == []
    assert component_notes(detector, Components(36, 0, 1), {}) == [], "no figures of regions"
    (note,) = component_notes(detector, Components(37, 2, 4), {"regions": 36})
    assert note.startswith("2 of 37 defects")
