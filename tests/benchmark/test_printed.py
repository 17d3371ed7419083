"""The papers' printed tables: complete, consistent, and with exactly the slips that are annotated."""

import pytest

from jaxad.benchmark.printed import divisor_of, get_table, load_papers, paper_tables
from jaxad.run.config import load_config, shipped_names
from jaxad.run.errors import UserError

MVTEC = {
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill",
    "screw", "tile", "toothbrush", "transistor", "wood", "zipper",
}  # fmt: skip
CIFAR10 = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}
CATEGORIES = {
    "mvtec_ad": MVTEC,
    "cifar10": CIFAR10,
    "mnist": set("0123456789"),
    "btad": {"01", "02", "03"},
    "miad": {"electrical_insulator", "metal_welding", "photovoltaic_module", "wind_turbine"},
    "ucsd_ped1": {"masked"},
}
TEXTURES = {"carpet", "grid", "leather", "tile", "wood"}

every_table = pytest.mark.parametrize("name", list(paper_tables()))


def test_all_five_papers_are_there():
    assert set(load_papers()) == {"mae", "vae_compare", "vit_memory", "vqvae", "vt_adl"}
    assert len(paper_tables()) == 21


@every_table
def test_shape(name):
    table = get_table(name)
    width = len(table["columns"])
    for row in [*table["rows"], *table["means"]]:
        assert len(row["values"]) == width
        assert "std" not in row or len(row["std"]) == width
    categories = [row["category"] for row in table["rows"]]
    assert len(set(categories)) == len(categories)
    if categories != ["mean"]:
        expected = CATEGORIES[table["data"]]
        assert set(categories) == (TEXTURES if name.startswith("mae") else expected)
    for mean in table["means"]:
        assert set(mean["over"]) <= set(categories)
    assert table["metric"]["definition"]
    assert table["metric"]["key"] == "counts" or any(column["own"] for column in table["columns"])


@every_table
def test_figures_lie_in_the_range_of_their_unit(name):
    table = get_table(name)
    if table["metric"]["key"] == "counts":
        return
    top = {"fraction": 1.0, "percent": 100.0}[table["metric"]["unit"]]
    values = [v for row in table["rows"] for v in row["values"] if v is not None]
    # Half of all figures above half of the range: a percent column marked as fraction fails.
    assert all(0 <= v <= top for v in values)
    assert sum(v > top / 3 for v in values) > len(values) / 2


@every_table
def test_printed_means_are_the_columns_means_but_for_the_annotated_ones(name):
    table = get_table(name)
    found = set()
    for mean in table["means"]:
        rows = [row for row in table["rows"] if row["category"] in mean["over"]]
        for key, figure in (("values", "value"), ("std", "std")):
            for place, printed in enumerate(mean.get(key, ())):
                column = [row[key][place] for row in rows]
                if printed is None:
                    assert None in column, "a mean could be printed"
                    continue
                # Half a unit of the mean's last digit, and half of the figures' own.
                tolerance = (
                    10 ** -mean["decimals"][place] + 10 ** -table["metric"]["decimals"]
                ) / 2
                if abs(sum(column) / len(column) - printed) > tolerance + 1e-9:
                    where = (table["columns"][place]["name"], mean.get("group"), figure)
                    found.add((*where, printed, round(sum(column) / len(column), 2)))
    annotated = {
        (s["column"], s.get("group"), s["figure"], s["printed"], round(s["computed"], 2))
        for s in table["slips"]
        if s["kind"] == "mean"
    }
    assert found == annotated


@every_table
def test_the_configs_exist(name):
    for column in get_table(name)["columns"]:
        config = column.get("config")
        if config is None:
            continue
        assert config.partition(":")[0] in shipped_names()
        # A method of another paper is judged by the table's protocol, which its run is given.
        loaded = load_config(config, column.get("keys", {}))
        assert not column["own"] or loaded.evaluate.protocol != "jaxad"


def test_totals_of_the_table_of_counts():
    table = get_table("vit_memory_1")
    sums = [sum(row["values"][place] for row in table["rows"]) for place in range(3)]
    assert sums == table["totals"]["values"][:3] == [3629, 467, 1258]


def test_counts_agree_between_the_papers_but_for_the_annotated_slips():
    right = {row["category"]: row["values"] for row in get_table("vit_memory_1")["rows"]}
    table = get_table("mae_1")
    found = {
        (
            f"{row['category']}, {table['columns'][place]['name']}",
            value,
            right[row["category"]][place],
        )
        for row in table["rows"]
        for place, value in enumerate(row["values"][:3])
        if value != right[row["category"]][place]
    }
    assert found == {
        (s["where"], s["printed"], s["published"]) for s in table["slips"] if s["kind"] == "count"
    }
    assert [row["values"][4] for row in table["rows"]] == [
        right[row["category"]][3] for row in table["rows"]
    ]


def column_of(name, column):
    """One column as fractions, by category."""
    table = get_table(name)
    place = [one["name"] for one in table["columns"]].index(column)
    return {row["category"]: row["values"][place] / divisor_of(table) for row in table["rows"]}


def test_what_is_said_of_columns_taken_over():
    own = column_of("vt_adl_3", "VT-ADL (Ours)")
    assert column_of("vit_memory_4_pro", "VT_ADL") == pytest.approx(own, abs=1e-9)
    textures = {category: own[category] for category in TEXTURES}
    assert column_of("mae_2", "VT-ADL") == pytest.approx(textures, abs=1e-9)
    rows = {row["category"]: row["values"] for row in get_table("vt_adl_3")["rows"]}
    assert rows["zipper"][:3] == rows["carpet"][:3]


def test_figures_of_the_abstracts():
    """Figures that the papers repeat in their text, read from there independently."""
    means = {
        name: dict(zip([c["name"] for c in t["columns"]], t["means"][0]["values"], strict=True))
        for name, t in paper_tables().items()
        if t["means"]
    }
    assert means["vt_adl_2"]["VT-ADL"] == 0.984
    assert means["vqvae_3"]["VQ-VAE SSIM+AM"] == 0.66
    assert (means["vit_memory_3"]["Ours"], means["vit_memory_4_pixel"]["Ours"]) == (91.2, 93.0)
    assert means["vit_memory_4_pro"]["Ours"] == 92.3
    assert [means[f"vit_memory_5_{k}"]["Ours"] for k in ("image", "pixel", "pro")] == [
        92.2,
        91.9,
        91.0,
    ]
    assert means["mae_2"]["Ours"] - means["mae_2"]["CAE-CWSSIM"] == pytest.approx(2.4, abs=0.05)


def test_unknown_names():
    with pytest.raises(UserError, match="did you mean 'vt_adl_2'"):
        get_table("vt_adl2")
