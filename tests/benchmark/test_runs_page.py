"""The page over a benchmark: a table that sorts without a script, bars, images per category."""

from __future__ import annotations

import re

import numpy as np
import pytest

from jaxad.benchmark.runs_page import RunSummary, write_comparison
from jaxad.report import page as pages
from jaxad.report.charts import model_bars
from jaxad.report.content import Case
from jaxad.report.page import SORTABLE_COLUMNS, Cell, sortable_table


def case(path, *, brightness=100):
    image = np.full((8, 8, 3), brightness, np.uint8)
    return Case(path=path, label=0, defect="good", score=0.5, image=image, heat=np.zeros((8, 8)))


def run(name, category, seed=0, *, cases=(), **metrics):
    return RunSummary(name=name, category=category, seed=seed, metrics=metrics, seconds=3.0,
                      cases=cases)  # fmt: skip


def page(tmp_path, runs, **options):
    write_comparison(tmp_path / "report.html", runs, **options)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def orders(html):
    """Row -> its place under each column."""
    found = re.findall(r'<tr role="row" style="([^"]*)"><th[^>]*>(.*?)</th>', html)
    return {name: [int(n) for n in re.findall(r"--s\d+:(\d+)", style)] for style, name in found}


def test_every_column_gives_every_row_a_place():
    keys = [["a", 0.5, "x"], ["b", 0.9, None], ["c", float("nan"), "z"], ["d", 0.9, "y"]]
    rows = [[Cell(str(key), key) for key in row] for row in keys]
    html = sortable_table(["Model", "Metric", "Text"], rows, name="t", smallest_first=[2])
    # First column: as given. Second: largest first, ties as given, the undefined one last.
    assert orders(html) == {"a": [0, 2, 0], "b": [1, 0, 3], "c": [2, 3, 2], "d": [3, 1, 1]}
    assert re.findall(r'id="(t-\d)" (checked)?', html) == [
        ("t-0", "checked"), ("t-1", ""), ("t-2", "")]  # fmt: skip
    assert re.findall(r'<label for="(t-\d)">', html) == ["t-0", "t-1", "t-2"]
    # What the checked button makes the order is what the rows carry.
    style = pages.page("title", [])
    for column in range(SORTABLE_COLUMNS):
        rule = f".sorter>input:nth-of-type({column + 1}):checked~.scroll tbody tr"
        assert f"{rule}{{order:var(--s{column})}}" in style


def test_images_are_compared_within_a_category(tmp_path):
    runs = [
        run("pca", "screw", cases=[case("test/0.png", brightness=10)]),
        run("vae", "screw", cases=[case("test/0.png", brightness=10)]),
        run("pca", "wood", cases=[case("test/0.png", brightness=200)]),
        run("pca", "wood", 1, cases=[case("test/0.png", brightness=200)]),
    ]
    html = page(tmp_path, runs)
    parts = re.split(r'<section id="images[^>]*><h2>', html)[1:]
    assert [part.partition(":")[0] for part in parts] == ["screw", "wood"]
    # The photograph and one heat map per model, of several seeds the first alone.
    assert [part.count('alt="heat map of test/0.png"') for part in parts] == [2, 1]
    assert [part.count('alt="photograph test/0.png"') for part in parts] == [1, 1]


def test_the_best_is_marked_within_a_category(tmp_path):
    runs = [run("pca", "screw", aupro=0.5), run("vae", "screw", aupro=0.4),
            run("pca", "wood", aupro=0.2), run("vae", "wood", aupro=0.3)]  # fmt: skip
    html = page(tmp_path, runs)
    assert re.findall(r"<b>([\d.]+)</b>", html) == ["0.5000", "0.3000"]


def test_metrics_of_the_protocol_have_columns(tmp_path):
    name, std = "pixel_auroc_per_image_mean", "pixel_auroc_per_image_std"
    runs = [
        run("pca", "", protocol="vqvae", protocol_figures={name: 0.25, std: 0.9, "per_defect": {}}),
        run("vae", "", protocol="vqvae", protocol_figures={name: None, std: 0.1},
            undefined={f"protocol_figures.{name}": "no masks"}),
    ]  # fmt: skip
    html = page(tmp_path, runs)
    assert "vqvae: Pixel AUROC per image, mean" in html and "per defect" not in html.lower()
    assert ">0.2500<" in html and '<span title="no masks">' in html
    assert "<b>0.9000" not in html  # a larger deviation is no better


def test_means_are_over_the_categories_that_all_models_have(tmp_path):
    runs = [run("pca", "screw", aupro=0.2), run("pca", "screw", 1, aupro=0.4),
            run("pca", "wood", aupro=0.7), run("pca", "tile", aupro=0.9),
            run("vae", "screw", aupro=0.5), run("vae", "wood", aupro=0.1)]  # fmt: skip
    means = page(tmp_path, runs).partition('id="means"')[2].partition("</section>")[0]
    rows = re.findall(r'<th scope="row" role="rowheader">(\w+)</th>(.*?)</tr>', means)
    figures = {name: re.findall(r">([\d.]+)<", cells) for name, cells in rows}
    assert figures == {"pca": ["0.5000"], "vae": ["0.3000"]}
    assert "AUPRO (2)" in means and "Image AP" not in means


def test_metrics_that_no_run_has_are_named_once(tmp_path):
    runs = [run("pca", "0", image_auroc=0.5, undefined={"aupro": "no <masks>"}),
            run("vae", "0", image_auroc=0.6, undefined={"aupro": "no <masks>"})]  # fmt: skip
    html = page(tmp_path, runs)
    line = re.search(r"No run has ([^.]*)\.", html)[1]
    assert "AUPRO" in line and line.endswith("(no &lt;masks&gt;)") and "Image AUROC" not in line
    assert html.count("AUPRO") == 1


def test_bars_of_means_with_whiskers():
    values = {"a<b": {"pca": [0.2, 0.6], "vae": []}, "wood": {"vae": [1.5]}}
    svg = model_bars(values, ["pca", "vae"])
    bars = re.findall(r'width="([\d.]+)" height="11" class="(m\d)"><title>(.*?)</title>', svg)
    whole = float(re.search(r'width="([\d.]+)" height="11" class="track"', svg)[1])
    assert [(kind, title) for _, kind, title in bars] == [
        ("m0", "pca, a&lt;b: 0.4000"),
        ("m1", "vae, wood: 1.5000"),
    ]
    assert [float(width) / whole for width, _, _ in bars] == pytest.approx([0.4, 1.0], abs=0.01)
    assert svg.count('class="whisker"') == 1 and svg.count(">–<") == 2


def test_the_page_has_no_script(tmp_path):
    html = page(tmp_path, [run("<script>x</script>", "a", aupro=0.5), run("b", "a", aupro=0.1)])
    assert "<script" not in html and "default-src 'none'" in html
