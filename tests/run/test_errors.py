"""Suggestions help, or there are none."""

import pytest

from jaxad.run.errors import did_you_mean


@pytest.mark.parametrize(
    ("name", "known", "clause"),
    [
        ("vqvea", ["cae", "vqvae"], "; did you mean 'vqvae'?"),
        ("VQVAE", ["cae", "vqvae"], "; did you mean 'vqvae'?"),
        ("l3:max", ["l1:max", "l2:max", "ssim:max"], "; did you mean 'l1:max' or 'l2:max'?"),
        ("xyz", ["cae", "pca"], "; known: cae, pca"),
        ("part9.png", [f"part{i}.png" for i in range(6)], "; known: part0.png, part1.png"),
        ("x", [], ""),
    ],
)
def test_the_nearest_names_are_told(name, known, clause):
    assert did_you_mean(name, known).startswith(clause)


def test_a_long_list_ends():
    known = [f"category{i:03d}" for i in range(200)]
    assert did_you_mean("z", known).endswith("category029 and 170 more")
