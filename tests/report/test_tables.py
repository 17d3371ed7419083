import numpy as np
import pytest

from jaxad.report import tables


def test_terminal_table_aligns_figures_and_dashes_what_is_missing():
    rows = [
        {"model": "pca", "image_auroc": 0.5, "count": 12},
        {"model": "vae_grf", "image_auroc": None, "count": 3},
        {"model": "mae", "image_auroc": float("nan")},
    ]
    table = tables.format_metrics_table(rows, ["model", "image_auroc", "count"])
    assert table == "\n".join(
        [
            "Model    Image AUROC  Count",
            "───────  ───────────  ─────",
            "pca           0.5000     12",
            "vae_grf            –      3",
            "mae                –      –",
        ]
    )


def test_headings_can_be_given_and_wide_signs_keep_the_columns():
    table = tables.format_metrics_table(
        [{"n": "瓶", "v": 1.0}, {"n": "ab", "v": 2.0}], {"n": "Kind", "v": "Value"}
    )
    # The ideograph takes two terminal columns, as "ab" does.
    assert table.splitlines()[2:] == ["瓶    1.0000", "ab    2.0000"]


def test_a_table_without_rows_is_its_heading():
    assert tables.format_metrics_table([], ["aupro"]) == "AUPRO\n─────"
    assert tables.markdown_table([], ["aupro"]) == "| AUPRO |\n| --- |"


def test_markdown_table_escapes_the_separator():
    table = tables.markdown_table([{"a|b": "x|y\nz", "aupro": np.float64(0.25)}], ["a|b", "aupro"])
    assert table.splitlines() == [
        "| A\\|b | AUPRO |",
        "| --- | ---: |",
        "| x\\|y z | 0.2500 |",
    ]


@pytest.mark.parametrize(
    "seconds, text",
    [
        (None, "–"),
        (0.84, "0.8 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds, text):
    assert tables.format_seconds(seconds) == text


@pytest.mark.parametrize(
    "value, text",
    [
        (0.0, "0.0000"),
        (np.float32(0.5), "0.5000"),
        (3, "3"),
        (True, "yes"),
        (1e-7, "1e-07"),
        (123456.0, "1.235e+05"),
        ("x", "x"),
    ],
)
def test_values(value, text):
    assert tables.format_value(value) == text
