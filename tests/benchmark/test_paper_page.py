"""Metrics of one's own beside printed ones: differences, means alike on both sides, slips."""

from __future__ import annotations

import csv
import json
import statistics

import pytest

from jaxad.benchmark.paper_page import Column, compare, write_table
from jaxad.benchmark.printed import get_table


def column(name, values, **options):
    return Column(name=name, config="model:paper", values=values, **options)


def by_row(rows, name):
    return {row["row"]: row for row in rows if row["column"] == name}


def test_each_category_stands_beside_its_printed_figure():
    table = get_table("mae_2")
    ours = column("Ours", {"grid": {0: 0.9, 1: 0.8, 7: 1.0}, "tile": {0: None}})
    rows = by_row(compare(table, [ours], ["grid", "tile", "wood"]), "Ours")
    printed = next(r["values"][15] for r in table["rows"] if r["category"] == "grid") / 100
    grid = rows["grid"]
    assert (grid["printed"], grid["seeds"]) == (printed, 3)
    assert grid["ours"] == pytest.approx(0.9)
    assert grid["difference"] == pytest.approx(0.9 - printed)
    assert grid["std_over_seeds"] == pytest.approx(statistics.stdev((0.9, 0.8, 1.0)))
    # Percent with one decimal is a fraction with three.
    assert grid["decimals"] == 3
    for category in ("tile", "wood"):
        one = rows[category]
        assert (one["ours"], one["difference"], one["seeds"]) == (None, None, 0)
        assert one["printed"] is not None


def test_a_printed_mean_waits_for_all_of_its_categories():
    table = get_table("vqvae_3")
    categories = [row["category"] for row in table["rows"]]
    name = "VQ-VAE SSIM"
    half = {category: {0: 0.7} for category in categories[:5]}
    rows = by_row(compare(table, [column(name, half)], categories), name)
    assert rows["Mean, as printed"]["printed"] == 0.65
    assert rows["Mean, as printed"]["ours"] is None
    part = rows["mean of the 5 of 10 run"]
    place = [c["name"] for c in table["columns"]].index(name)
    values = [row["values"][place] for row in table["rows"][:5]]
    assert part["printed"] == pytest.approx(sum(values) / 5)
    assert part["difference"] == pytest.approx(0.7 - sum(values) / 5)
    whole = column(name, {category: {0: 0.6} for category in categories})
    rows = by_row(compare(table, [whole], categories), name)
    assert rows["Mean, as printed"]["difference"] == pytest.approx(0.6 - 0.65)
    assert not any("run" in row for row in rows)


def test_the_spread_of_a_mean_is_over_seeds_that_have_every_category():
    table = get_table("vt_adl_4_pro")
    figures = {"01": {0: 0.8, 1: 0.9}, "02": {0: 0.6, 1: 0.7}, "03": {0: 0.7, 1: 0.8, 2: 0.1}}
    rows = by_row(compare(table, [column("ours", figures)], ["01", "02", "03"]), "ours")
    mean = rows["Mean, as printed"]
    assert mean["seeds"] == 2 and mean["ours"] == pytest.approx(0.75)
    assert mean["std_over_seeds"] == pytest.approx(statistics.stdev((0.7, 0.8)))


def test_groups_of_categories_and_the_mean_that_its_column_contradicts():
    table = get_table("vae_compare_1")
    categories = [row["category"] for row in table["rows"]]
    figures = {category: {0: 0.8} for category in categories}
    stds = {category: {0: 0.1} for category in categories}
    columns = [column(name, figures, stds=stds) for name in ("VAE", "ViT-VAE")]
    rows = compare(table, columns, categories)
    vit, vae = by_row(rows, "ViT-VAE"), by_row(rows, "VAE")
    wrong = vit["Average (texture), as printed"]
    assert (wrong["printed"], wrong["printed_std"]) == (0.88, 0.12)
    assert table["slips"][wrong["slip"] - 1]["printed"] == 0.88
    right = vit["Average (texture), computed from the rows"]
    assert right["printed"] == pytest.approx(0.84, abs=5e-3) and right["slip"] is None
    assert vae["Average (texture), as printed"]["slip"] is None
    assert "Average (non-texture), computed from the rows" not in vit
    assert wrong["std_over_images"] == pytest.approx(0.1)
    # The data set's own groups too; those that are printed are not repeated.
    assert "mean of textures" in vit and "mean of textures with hazelnut" not in vit


def test_a_table_of_means_is_filled_from_all_categories():
    table = get_table("vit_memory_6_pro")
    categories = [row["category"] for row in get_table("vit_memory_3")["rows"]]
    ours = column("Base", {category: {0: 0.8} for category in categories})
    rows = by_row(compare(table, [ours], categories), "Base")
    assert rows["carpet"]["printed"] is None and rows["carpet"]["ours"] == 0.8
    (mean,) = [row for name, row in rows.items() if name.endswith("as printed")]
    assert mean["printed"] == 0.796 and mean["difference"] == pytest.approx(0.004)


def test_the_files(tmp_path):
    table = get_table("vt_adl_3")
    categories = [row["category"] for row in table["rows"]]
    columns = [
        column("VT-ADL (Ours)", {"grid": {0: 0.9}}, settings="64 x 64 pixels",
               errors=["vt_adl/wood/seed0: no such folder"]),
        column("pca", {"grid": {0: 0.5}}, printed=False),
    ]  # fmt: skip
    write_table(tmp_path, table, columns, categories, statement="As VT-ADL does.")
    text = (tmp_path / "table_vt_adl_3.md").read_text(encoding="utf-8")
    assert "| grid | 0.871 | 0.9000 | +0.0290 | 0.5000 |" in text
    assert "(2021), Table III" in text and "protocol vt_adl. As VT-ADL does." in text
    assert "vt_adl/wood/seed0: no such folder" in text and "64 x 64 pixels" in text
    for slip in table["slips"]:
        assert slip["text"] in text
    assert "Uni. Stud." in text and "| zipper |" in text
    with open(tmp_path / "table_vt_adl_3.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    stored = json.loads((tmp_path / "table_vt_adl_3.json").read_text(encoding="utf-8"))
    assert len(rows) == len(stored["rows"]) and stored["protocol"] == "As VT-ADL does."
    grid = next(row for row in rows if row["row"] == "grid" and row["column"] == "VT-ADL (Ours)")
    assert float(grid["difference"]) == pytest.approx(0.029)
    others = {row["row"]: row for row in stored["others_as_printed"]}
    assert others["carpet"]["1-NN"] == 0.512 and others["Means"]["Uni. Stud."] == 0.857
    assert "VT-ADL (Ours)" not in others["carpet"]
