"""Printed tables as benchmarks: what a table fills in, and one of them filled on tiny images."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from jaxad import models
from jaxad.benchmark.papers import BASELINE, _settings, _with_variant, plan, run_columns
from jaxad.benchmark.printed import get_table, load_papers, paper_of, paper_tables
from jaxad.cli.main import main
from jaxad.run.config import load_config, load_settings, to_json
from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder

ROOT = {"data.root": "/images"}
EXPERIMENTS = [name for name, t in paper_tables().items() if t["metric"]["key"] != "counts"]


def cifar10(folder):
    """A CIFAR-10 of 12 training and 4 test images of each class; all of them noise."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 12), ("test", 4)):
        labels = np.repeat(np.arange(10), count)
        arrays[f"x_{split}"] = np.uint8(rng.integers(0, 256, (len(labels), 32, 32, 3)))
        arrays[f"y_{split}"] = labels
    folder.mkdir()
    np.savez(folder / "cifar10.npz", **arrays)
    return folder


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("variant", ["", "small"])
def test_every_table_has_a_grid_of_configs_that_build(name, variant):
    table, planned = get_table(name), plan([name], variant=variant, overrides=ROOT)
    assert planned.configs[-1] == BASELINE and len(planned.configs) >= 2
    seen = set()
    for one in planned.configs:
        config = load_config(one, planned.own_overrides.get(one, planned.overrides))
        assert config.data.name == table["data"] and config.data.root == ROOT["data.root"]
        assert config.evaluate.protocol == paper_of(table)["protocol"]
        seen.add((config.data.channels, config.data.holdout, config.evaluate.smoothing))
        options = config.model.to_dict()
        shape = (*config.data.image_size, config.data.channels)
        models.build(options.pop("name"), shape, **options)
        if variant:
            assert max(config.data.image_size) <= 128
            assert one == BASELINE or 1 < config.train.steps <= 3000
            assert config.train.optimizer != "none"  # no public weights have this size
    # The baseline is judged on what the first of the table's own configs sees.
    assert len(seen) == 1


def test_variants_stand_between_the_paper_and_what_a_column_is():
    assert plan(["vqvae_3"], variant="small", overrides=ROOT).configs == (
        "vqvae:paper,small,cifar10",
        "cae:paper,small,l2",
        "pca",
    )
    own = plan(["vqvae_3"], overrides=ROOT, own_only=True)
    assert own.configs == ("vqvae:cifar10,paper", "pca")
    ablation = plan(["vit_memory_6_pro"], overrides=ROOT)
    assert len(ablation.configs) == 5 and len(ablation.categories) == 15


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("variant", ["", "small"])
def test_no_two_columns_are_the_same_model(name, variant):
    """Each column that is run is a run, or a map, of its own."""
    resolved = {}
    for column in run_columns(get_table(name)):
        spec = _with_variant(column["config"], variant)
        settings = dataclasses.replace(load_settings(spec, column.get("keys", {})), variants="")
        key = (repr(settings), column.get("map", ""))
        assert key not in resolved, (column["name"], resolved[key])
        resolved[key] = column["name"]


def test_methods_that_papers_compare_with_are_runs():
    """What stands for a printed column of another method, in which table."""
    found = {}
    for name in EXPERIMENTS:
        for column in run_columns(get_table(name)):
            if not column["own"]:
                found.setdefault(column["config"], set()).add((name, column["name"]))
    assert found["cae:l2+ssim,paper"] == {("vt_adl_4_pr_auc", "AE MSE+SSIM")}
    assert ("vt_adl_4_pr_auc", "AE MSE") in found["cae:l2,paper"]
    assert {("vit_memory_3", "L2-CAE"), ("vqvae_3", "AE L2")} <= found["cae:l2,paper"]
    assert {("vqvae_1", "AE SSIM"), ("vit_memory_3", "AE_SSIM")} <= found["cae:ssim,paper"]
    assert found["anovit:paper"] == {("vit_memory_3", "AnoViT"), ("mae_2", "AnoViT")}
    assert {("vqvae_2", "VAE L2"), ("mae_2", "VAE")} <= found["vae:paper"]
    # One grid has one run of a config: its tables ask for the same keys.
    for paper in load_papers().values():
        keys = {}
        for table in paper["tables"]:
            for column in run_columns(table):
                place = (column["config"], table["data"])
                assert keys.setdefault(place, column.get("keys")) == column.get("keys")


def test_another_method_is_judged_as_the_papers_own():
    given = {**ROOT, "model.beta": "0.5", "train.steps": "7", "train.weights": "w"}
    planned = plan(["vqvae_2"], overrides=given)
    keys = planned.own_overrides["vae:paper"]
    assert not {"model.beta", "train.weights"} & keys.keys()
    config = load_config("vae:paper", keys)
    assert (config.train.steps, config.data.channels) == (7, 1)
    assert tuple(config.data.image_size) == (128, 128) and config.model.bound_maps
    assert (config.data.name, config.evaluate.protocol) == ("ucsd_ped1", "vqvae")
    cropped = plan(["vt_adl_3"], overrides=ROOT)
    region = load_config("vt_adl:mvtec,no_noise,paper").data.region
    for one in ("cae:ssim,paper", "vae:paper", "pca"):
        assert cropped.own_overrides[one]["data.region"] == tuple(region)
    started = plan(["mae_2"], overrides=ROOT, weights={"anovit": "vit"}).own_overrides
    assert started["anovit:paper"]["train.weights"] == "vit"
    assert started["anovit:paper"]["data.holdout"] == 0.0
    assert "train.weights" not in started["vae:paper"]


def test_a_table_draws_as_many_images_as_its_paper():
    """1,024 of the 10,000 of a MIAD category, for the baseline too; a user may take all."""
    planned = plan(["vae_compare_2"], overrides=ROOT)
    for one in planned.configs:
        keys = planned.own_overrides.get(one, planned.overrides)
        assert load_config(one, keys).data.limit == 1024
    assert (
        plan(["vae_compare_2"], overrides={**ROOT, "data.limit": "0"}).overrides["data.limit"]
        == "0"
    )
    assert "data.limit" not in plan(["vae_compare_1"], overrides=ROOT).overrides


def test_weights_are_for_the_runs_of_one_config(tmp_path):
    planned = plan(["vae_compare_1"], overrides=ROOT, weights={"vit_vae": "vit"})
    given = {
        one: planned.own_overrides.get(one, planned.overrides).get("train.weights")
        for one in planned.configs
    }
    assert {one for one, folder in given.items() if folder} == {"vit_vae:reference"}
    assert planned.own_overrides["vit_vae:reference"] == {
        **planned.overrides,
        "train.weights": "vit",
    }
    with pytest.raises(UserError, match=r"names 'anovit', but runs are of vae, vae_grf, vit_vae"):
        plan(["vae_compare_1"], overrides=ROOT, weights={"anovit": "vit"})
    # Of a run the table says where it started, and where the authors do.
    run = RunFolder(tmp_path)
    for folder, words in (
        ("", "random values where the authors start from X"),
        ("d/w", "from d/w"),
    ):
        settings = load_settings("vit_vae:small", {"train.weights": folder})
        run.config.write_text(to_json(settings))
        run.timing.write_text('{"steps": 7, "train_seconds": 1.0}')
        assert words in _settings(run, "X")
    assert "authors" not in _settings(run, "X")


def test_weights_of_a_wrong_form_are_told(capsys):
    words = ["benchmark", "--workdir=x", "--configs", "pca", "--weights"]
    assert main([*words, "vit_vae"]) == 2
    assert (
        "--weights takes CONFIG=DIR such as vit_vae=DIR, not 'vit_vae'" in capsys.readouterr().err
    )
    assert main([*words, "vit_vae=DIR"]) == 2
    assert "names 'vit_vae', but runs are of pca" in capsys.readouterr().err


def test_a_part_of_a_table():
    planned = plan(["vae_compare_1"], configs=["vit_vae:reference"], categories=["wood", "bottle"],
                   overrides=ROOT)  # fmt: skip
    assert planned.configs == ("vit_vae:reference", "pca")
    assert planned.categories == ("wood", "bottle")
    # In the order of the table, and over several tables of one grid.
    assert plan(["vit_memory_3", "vit_memory_4_pro"], overrides=ROOT).papers[1].endswith("pro")


def test_what_is_for_the_deep_models_alone_does_not_reach_the_baseline():
    keys = {**ROOT, "train.weights": "w", "model.beta": "0.5", "train.devices": "1",
            "evaluate.primary_map": "ssim"}  # fmt: skip
    own = plan(["vqvae_1"], overrides=keys).own_overrides[BASELINE]
    assert not {"train.weights", "model.beta", "evaluate.primary_map"} & own.keys()
    assert own["train.devices"] == "1" and own["data.root"] == ROOT["data.root"]


@pytest.mark.parametrize(
    ("papers", "options", "message"),
    [
        (["vt_adl_1"], {}, "no printed table"),
        (["mae_1"], {}, "jaxad data inspect --name=mvtec_ad"),
        (["vqvae_1", "vqvae_3"], {}, "workdirs of their own"),
        (["vt_adl_3", "vit_memory_3"], {}, "workdirs of their own"),
        (["vqvae_1"], {"configs": ["vae:paper"]}, "no config 'vae:paper'"),
        (["vqvae_3"], {"categories": ["plane"]}, "no category 'plane'"),
        (["vqvae_3"], {"overrides": {}}, "needs CIFAR-10: --config.data.root=DIR"),
        (["vqvae_3"], {"variant": "smal"}, "did you mean 'small'"),
    ],
)
def test_mistakes_are_told(papers, options, message):
    with pytest.raises(UserError, match=message):
        plan(papers, **{"overrides": ROOT, **options})


@pytest.mark.slow
def test_a_table_is_filled_by_one_command(tmp_path, capsys):
    root = cifar10(tmp_path / "images")
    keys = {"data.root": root, "data.pipeline": "memory", "model.features": 4, "model.codes": 4,
            "model.residual_layers": 1, "train.steps": 2, "train.batch_size": 4,
            "train.devices": 1, "evaluate.report_images": 2}  # fmt: skip
    command = ["benchmark", "--paper=vqvae_3", "--variant=small", "--categories=cat,truck",
               f"--workdir={tmp_path / 'runs'}"]  # fmt: skip
    assert main(command + [f"--config.{key}={value}" for key, value in keys.items()]) == 0
    printed = next(r["values"] for r in get_table("vqvae_3")["rows"] if r["category"] == "cat")
    assert f"| cat | {printed[2]:.2f} |" in capsys.readouterr().out
    stored = json.loads((tmp_path / "runs" / "table_vqvae_3.json").read_text())
    rows = {(row["row"], row["column"]): row for row in stored["rows"]}
    folder = tmp_path / "runs" / "vqvae-paper-small-cifar10" / "cat" / "seed0"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["protocol"] == "vqvae"
    # Two printed columns are two maps of one run.
    for column, name in (("VQ-VAE SSIM", "ssim"), ("VQ-VAE SSIM+AM", "ssim*am")):
        figure = metrics["protocol_maps"][name]["image_auroc"]
        assert rows["cat", column]["ours"] == figure is not None
        assert rows["cat", column]["difference"] == pytest.approx(
            figure - rows["cat", column]["printed"]
        )
    assert rows["cat", "VQ-VAE SSIM"]["ours"] != rows["cat", "VQ-VAE SSIM+AM"]["ours"]
    # And AE L2, which the paper took from elsewhere, is a run too.
    place = [column["name"] for column in get_table("vqvae_3")["columns"]].index("AE L2")
    printed_l2 = [
        r["values"][place] for r in get_table("vqvae_3")["rows"] if r["category"] == "cat"
    ]
    assert rows["cat", "AE L2"]["printed"] == printed_l2[0]
    assert rows["cat", "AE L2"]["ours"] is not None
    assert set(stored["others_as_printed"][0]) == {"row", "DSVDD"}
    assert rows["truck", "pca"]["ours"] is not None and rows["truck", "pca"]["printed"] is None
    assert ("mean of the 2 of 10 run", "pca") in rows
    config = json.loads((tmp_path / "runs" / "pca" / "cat" / "seed0" / "config.json").read_text())
    assert config["data"]["image_size"] == [32, 32] and config["evaluate"]["smoothing"] == 0
    settings = {one["name"]: one["settings"] for one in stored["columns"]}
    assert settings["VQ-VAE SSIM"] == "32 x 32 pixels, 2 steps of 4 images"
    assert settings["pca"].startswith("32 x 32 pixels, closed form")
