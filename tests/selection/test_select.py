"""A whole selection on small images: its files, its page, and how it goes on."""

from __future__ import annotations

import csv
import json
import pathlib
import re
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

import jaxad
from jaxad.cli import main as cli
from jaxad.run.config import load_settings
from jaxad.run.errors import UserError
from jaxad.selection import judge, select as selecting
from jaxad.selection.candidates import CANDIDATES, Candidate, parted
from jaxad.selection.ranking import reasons_for
from jaxad.selection.records import SelectionFolder
from jaxad.selection.trial import Trial, make_trial


@pytest.fixture(scope="module")
def found(tiny_data, configs, tmp_path_factory):
    """A selection that nothing has interrupted."""
    workdir = tmp_path_factory.mktemp("selected") / "work"
    return jaxad.select(tiny_data, workdir, configs=[configs["blind"], configs["seeing"]])


@pytest.fixture
def copied(found, tmp_path):
    """A copy of its folder that a test may damage."""
    return pathlib.Path(shutil.copytree(found.folder.path, tmp_path / "work"))


def without_time(rows):
    return [row._replace(seconds=0.0, milliseconds=0.0) for row in rows]


def test_the_model_that_sees_defects_is_before_the_one_that_rebuilds_them(found, configs):
    assert not found.chosen.clearly_behind
    value = {(row.candidate, row.score): row for row in found.rows}
    seeing, blind = (value[configs[name], "l1:top1"] for name in ("seeing", "blind"))
    assert seeing.value > 0.9 and blind.clearly_behind and blind.value < 0.92
    assert found.left_out == {}


def test_what_judges_was_not_trained_on(found, tiny_data):
    trial = json.loads(found.folder.trial.read_text())
    assert len(trial["splits"]) == 3  # few images: one split would judge by six
    for number, split in enumerate(trial["splits"]):
        for row in found.rows:
            data = json.loads(found.folder.run(row.candidate, number).data.read_text())
            assert set(split["left_out"]) == set(data["holdout"])
            assert not set(split["left_out"]) & set(data["training"])
        assert max(split["drawn_on"]) < len(split["left_out"])
    assert all("test/" not in name for name in trial["sha256"])


def test_the_table_holds_the_ranking(found):
    with found.folder.ranking.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["score"] for row in rows] == [row.score for row in found.rows]
    (place,) = [int(row["place"]) for row in rows if row["chosen"] == "1"]
    assert found.rows[place - 1] is found.chosen
    assert float(rows[0]["scratch"]) == pytest.approx(found.rows[0].kinds["scratch"])


def test_the_page_is_one_file_with_reasons_pictures_and_the_command(found):
    page = found.folder.report.read_text()
    assert "script-src 'sha256-" in page and "default-src 'none'" in page
    assert not re.search(r"(?:src|href)=\"?https?:", page) and page.count("<script") == 2
    assert page.count("data:image/webp;base64,") >= 2 * 4 * 5
    for words in (
        "What to take",
        "Ranking",
        "What this cannot tell",
        "jaxad train \\\n  --config=",
    ):
        assert words in page
    assert str(found.chosen.score) in page


def test_the_command_is_one_that_train_takes(found):
    words = shlex.split(found.command)
    assert words[:2] == ["jaxad", "train"] and words[-1] == "--workdir=RUN"
    keys = dict(word.removeprefix("--config.").split("=", 1) for word in words[3:-1])
    settings = load_settings(found.chosen.config, keys)
    assert settings.evaluate.primary_score == found.chosen.score
    assert settings.data.holdout == 0  # all images are trained on
    assert settings.data.align == "auto"


def test_the_same_command_changes_nothing(found, copied, tiny_data, configs):
    before = {file: file.stat().st_mtime_ns for file in (copied / "results").iterdir()}
    again = jaxad.select(tiny_data, copied, configs=[configs["blind"], configs["seeing"]])
    assert (
        again.rows == found.rows and again.chosen == found.chosen and again.command == found.command
    )
    assert {file: file.stat().st_mtime_ns for file in (copied / "results").iterdir()} == before


@pytest.mark.slow
def test_an_interrupted_one_goes_on_to_the_same_ranking(
    found, tiny_data, configs, tmp_path, monkeypatch
):
    own = selecting.judge

    def interrupted(folder, candidate, *args, **options):
        if candidate.config == configs["seeing"]:
            raise KeyboardInterrupt
        return own(folder, candidate, *args, **options)

    both, work = [configs["blind"], configs["seeing"]], tmp_path / "work"
    monkeypatch.setattr(selecting, "judge", interrupted)
    with pytest.raises(KeyboardInterrupt):
        jaxad.select(tiny_data, work, configs=both)
    (kept,) = (work / "results").iterdir()
    content = kept.read_bytes()
    monkeypatch.setattr(selecting, "judge", own)
    again = jaxad.select(tiny_data, work, configs=both)
    assert kept.read_bytes() == content
    assert without_time(again.rows) == without_time(found.rows)


@pytest.mark.slow
def test_what_has_no_time_is_named_and_tried_with_more(found, copied, tiny_data, configs):
    (
        copied / "results" / next(iter(p.name for p in (copied / "results").glob("*seeing*")))
    ).unlink()
    both = [Candidate(configs["blind"], seconds=5), Candidate(configs["seeing"], seconds=1e5)]
    short = jaxad.select(tiny_data, copied, configs=both, minutes=2)
    assert set(short.left_out) == {configs["seeing"]}
    assert re.search(r"--minutes=\d+ is enough", short.left_out[configs["seeing"]])
    assert configs["seeing"].rpartition("/")[2] in short.folder.report.read_text()
    longer = jaxad.select(tiny_data, copied, configs=both, minutes=1e6)
    assert longer.left_out == {}
    assert without_time(longer.rows) == without_time(found.rows)


@pytest.mark.slow
def test_a_training_that_is_too_slow_is_ended_and_remembered(
    tiny_data, configs, tmp_path, monkeypatch
):
    """Its projected time is kept, so that the next call does not begin it in vain."""
    monkeypatch.setattr(judge, "_SURE_AFTER", -1.0)
    slow = judge._within(10.0)
    update = judge.Update("step", 1, 1000, 1.0)
    slow(update)
    with pytest.raises(judge.TooSlow) as error:
        slow(update._replace(done=3, seconds=2.0))
    assert error.value.seconds == pytest.approx(2.0 + 997 / 2)  # two steps a second
    judge._within(1e6)(update)

    own = selecting.judge

    def too_slow(folder, candidate, *args, **options):
        if candidate.config == configs["blind"]:
            raise judge.TooSlow(4000.0)
        return own(folder, candidate, *args, **options)

    monkeypatch.setattr(selecting, "judge", too_slow)
    both = [configs["seeing"], configs["blind"]]
    first = jaxad.select(tiny_data, tmp_path / "work", configs=both)
    assert "--minutes=67 is enough" in first.left_out[configs["blind"]]
    monkeypatch.setattr(selecting, "judge", own)
    second = jaxad.select(tiny_data, tmp_path / "work", configs=both)
    assert second.left_out == first.left_out


def refused(*args, **options) -> str:
    with pytest.raises(UserError) as error:
        jaxad.select(*args, **options)
    sentence = str(error.value)
    assert "\n" not in sentence
    return sentence


def write_images(folder: pathlib.Path, count: int, image=None) -> pathlib.Path:
    rng = np.random.default_rng(0)
    (folder / "train/good").mkdir(parents=True)
    for i in range(count):
        pixels = rng.integers(0, 255, (16, 16, 3), np.uint8) if image is None else image
        Image.fromarray(pixels).save(folder / "train/good" / f"{i}.png")
    return folder


def test_bad_input_is_told_in_one_sentence(tiny_data, configs, tmp_path):
    one, work = [configs["seeing"]], tmp_path / "work"
    assert "needs 12" in refused(write_images(tmp_path / "few", 5), work, configs=one)
    flat = write_images(tmp_path / "flat", 14, np.full((16, 16, 3), 90, np.uint8))
    assert "jaxad data defects" in refused(flat, work, configs=one)
    (tmp_path / "none").mkdir()
    assert "none" in refused(tmp_path / "none", work, configs=one)
    assert "none-such" in refused(tmp_path / "none-such", work, configs=one)
    sentence = refused(tiny_data, work, minutes=0.1)
    assert "pca takes about 20 s, so give --minutes=0.4 or more" in sentence
    assert "data.image_size" in refused(tiny_data, work, overrides={"data.image_size": "8,8"})
    assert "train.steps" in refused(tiny_data, work, overrides={"train.steps": 3})
    assert "no config named" in refused(tiny_data, work, configs=["pcaa"])


@pytest.mark.slow
def test_another_folder_seed_or_image_is_refused(copied, tiny_data, configs, tmp_path):
    both = [configs["blind"], configs["seeing"]]
    assert "another seed" in refused(tiny_data, copied, configs=both, seed=5)
    assert "another folder" in refused(
        write_images(tmp_path / "other", 20), copied, configs=both
    )  # fmt: skip
    damaged = next((copied / "results").glob("*blind*"))
    whole = json.loads(damaged.read_text())
    damaged.write_text(damaged.read_text().replace("0.", "1.", 1))
    assert f"{damaged} is damaged" in refused(tiny_data, copied, configs=both)
    # Edited, and the digest removed as its sentence says.
    del whole["content_sha256"]
    fewer = {score: [each[:-1] for each in lists] for score, lists in whole["good"].items()}
    for part in ({"good": {}}, {"drawn": {}}, {"pixel_auroc": {}}, {"good": fewer}):
        damaged.write_text(json.dumps(whole | part))
        assert f"{damaged} is damaged (it lacks" in refused(tiny_data, copied, configs=both)


def test_a_config_that_has_changed_is_refused(copied, tiny_data, configs):
    """Else what the old one gave would be ranked under its name."""
    file = pathlib.Path(configs["seeing"])
    before = file.read_text()
    try:
        file.write_text(before.replace("components = 4", "components = 5"))
        sentence = refused(tiny_data, copied, configs=[configs["blind"], configs["seeing"]])
    finally:
        file.write_text(before)
    assert "with other settings than" in sentence and "seeing" in sentence


def test_two_configs_that_would_share_their_files_are_refused(tiny_data, configs, tmp_path):
    names = [tmp_path / "a b.py", tmp_path / "a-b.py"]
    for name in names:
        shutil.copy(configs["seeing"], name)
    sentence = refused(tiny_data, tmp_path / "work", configs=list(map(str, names)))
    assert "would both be kept in" in sentence


def test_the_home_folder_is_meant_by_its_sign(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert SelectionFolder("~/work").trial == tmp_path / "work" / "trial.json"


def test_an_image_that_has_changed_is_refused(configs, tiny_data, tmp_path):
    root = pathlib.Path(shutil.copytree(tiny_data, tmp_path / "stripes"))
    folder, keys = SelectionFolder(tmp_path / "work"), {"data.root": str(root)}
    folder.path.mkdir()
    first = make_trial(folder, keys, image_size=(32, 32), seed=0)
    again = make_trial(folder, keys, image_size=(32, 32), seed=0)
    assert first.digest == again.digest
    for one, other in zip(first.splits, again.splits, strict=True):
        np.testing.assert_array_equal(one.drawn, other.drawn)
    image = root / "train/good/3.png"
    pixels = np.asarray(Image.open(image))
    Image.fromarray(255 - pixels).save(image)
    with pytest.raises(UserError, match=r"3\.png"):
        make_trial(folder, keys, image_size=(32, 32), seed=0)


def test_good_images_and_defects_come_to_the_size_of_a_model_the_same_way(found, tiny_data):
    keys = {"data.root": str(tiny_data)}
    trial = make_trial(SelectionFolder(found.folder.path.parent / "other"), keys,
                       image_size=(32, 32), seed=0)  # fmt: skip
    small = trial.splits[0].at((16, 16))
    assert small.good.shape[1:] == small.drawn.shape[1:] == (16, 16, 3)
    assert small.masks.shape == small.drawn.shape[:3]
    # Outside of a defect a drawn image is the good one, to a pixel of the resizing.
    far = ~trial.splits[0].masks[0]
    difference = trial.splits[0].drawn[0] != trial.splits[0].good[trial.splits[0].base[0]]
    assert difference.any(axis=-1)[far].mean() < 0.05


def test_every_usual_candidate_is_a_config_that_loads(monkeypatch):
    names = [candidate.name for candidate in CANDIDATES]
    assert len(set(names)) == len(names)
    monkeypatch.setattr("jaxad.selection.candidates.is_installed", lambda package: False)
    able, absent = parted(CANDIDATES)
    assert "pca" in [one.config for one in able] and "feature_pca" in absent
    assert "jaxad[features]" in absent["feature_pca"]
    assert "jaxad[features]" in absent["restore:pretrained"]
    assert all(not one.config.startswith("feature") for one in able)
    assert "restore" in [one.config for one in able]


def test_closed_forms_are_tried_first_and_rank_as_usual(tiny_data, tmp_path, monkeypatch, configs):
    tried = []

    def judged(folder, candidate, trial, *, seconds):
        tried.append(candidate.name)
        raise UserError("not here")

    trial = Trial("none", "", {}, 0, (), {})
    monkeypatch.setattr(selecting, "judge", judged)
    monkeypatch.setattr(selecting, "make_trial", lambda *_, **__: trial)
    trained = Candidate("vae:small", {"data.image_size": "16,16"})
    order = [trained, Candidate(configs["seeing"], trained=False)]
    with pytest.raises(UserError, match=r": not here; vae:small.*: not here"):
        jaxad.select(tiny_data, tmp_path / "work", configs=order)
    assert tried == [one.name for one in order[::-1]]


def test_what_is_trained_on_drawn_defects_is_named(found):
    assert Candidate("restore:small").trained_on_drawn_defects
    assert not Candidate("own_features").trained_on_drawn_defects
    row = found.rows[0]
    plain = reasons_for(row, [row])
    assert reasons_for(row, [row], flattered=["another"]) == plain
    (said,) = set(reasons_for(row, [row], flattered=[row.candidate])) - set(plain)
    assert said.startswith(f"{row.candidate} is trained on defects")
    behind = row._replace(candidate="behind", behind_low=0.1)
    assert not any("flatter" in r for r in reasons_for(row, [row, behind], flattered=["behind"]))


def test_the_command_line(found, copied, tiny_data, configs, capsys):
    words = ["select", f"--root={tiny_data}", f"--workdir={copied}", "--configs",
             configs["blind"], configs["seeing"]]  # fmt: skip
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "clearly behind" in out and f"next: {found.command}" in out
    assert cli.main(["select", f"--root={tiny_data}", "--minutes=0.01"]) == 2
    assert cli.main(["select", f"--root={tiny_data}", "--config.train.steps=3"]) == 2
