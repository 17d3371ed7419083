"""Generated photographs: seeded, the same however they are drawn, with exact masks, in strips."""

import numpy as np
import pytest
import tifffile

from jaxad.data.datasets import read_table
from jaxad.data.images import decode
from jaxad.data.masks import read_mask
from jaxad.data.synthetic import photographs
from jaxad.data.synthetic.photographs import Photograph
from jaxad.run.errors import UserError

SIZE = (300, 400)


@pytest.mark.parametrize("category", photographs.SCENES)
def test_rows_do_not_depend_on_how_they_are_drawn(category):
    photograph = Photograph(category, seed=5, kind="pit", size=SIZE)
    picture, mask = photograph.whole()
    assert picture.shape == (*SIZE, 3) and picture.dtype == np.uint8
    for start, stop in ((0, 300), (37, 38), (100, 201)):
        rows, marked = photograph.rows(start, stop)
        np.testing.assert_array_equal(rows, picture[start:stop])
        np.testing.assert_array_equal(marked, mask[start:stop])
    assert ((picture == 0) | (picture == 255)).mean() < 0.02
    other, none = Photograph(category, seed=6, size=SIZE).whole()
    assert not none.any() and np.abs(other.astype(int) - picture).mean() > 2


@pytest.mark.parametrize("kind", photographs.KINDS)
def test_the_mask_is_what_the_defect_changed_and_lies_where_it_was_planted(kind):
    photograph = Photograph("cast", seed=3, kind=kind, size=SIZE, sides=(10, 10))
    picture, mask = photograph.whole()
    (spot,) = photograph.spots
    photograph.spots = ()
    clean, _ = photograph.whole()
    change = np.abs(picture.astype(int) - clean).max(axis=-1)
    # Rounding to gray levels moves either picture by at most half a level.
    assert (change[mask] >= photographs.VISIBLE - 1).all()
    assert (change[~mask] <= photographs.VISIBLE + 1).all()
    rows, columns = np.nonzero(mask)
    assert abs(rows.mean() - spot.y) < 1 and abs(columns.mean() - spot.x) < 1
    longest = np.hypot(np.ptp(rows), np.ptp(columns)) + 1
    assert (
        7 <= longest <= 16
    )  # the box of a disc of 10 pixels, which touches 11, has a diagonal of 15.1


def test_defects_lie_on_the_plate():
    for seed in range(10):
        photograph = Photograph("plate", seed=seed, kind="burr", size=SIZE)
        rows, columns = np.nonzero(photograph.whole()[1])
        photograph.spots = ()
        surface = photograph.whole()[0].mean(axis=-1) > 100
        assert surface[rows, columns].all()


def test_a_data_set_on_disk(tmp_path):
    counts = {"train": 2, "test_good": 1, "test_defective": 4}
    folder = photographs.write_photographs(tmp_path, "weave", size=(160, 200), **counts)
    table = read_table(tmp_path, category="weave")
    assert table.root == str(folder) and len(table.train_good()) == 2
    assert {kind: len(some) for kind, some in table.by_kind("test").items()} == {
        "good": 1, "burr": 2, "pit": 1, "scratch": 1,
    }  # fmt: skip
    assert all(read_mask(s.mask).any() for s in table.test() if s.label)


def test_a_tiff_is_written_strip_by_strip(tmp_path):
    photograph = Photograph("plate", seed=1, size=SIZE)
    path = tmp_path / "large.tif"
    photograph.write_tiff(path)
    np.testing.assert_array_equal(decode(path, channels=3), photograph.whole()[0])
    with tifffile.TiffFile(path) as file:
        assert len(file.pages[0].dataoffsets) == 3


def test_wrong_names_and_sizes_end_in_a_sentence():
    with pytest.raises(UserError, match="'weav'; did you mean 'weave'"):
        Photograph("weav", seed=0)
    with pytest.raises(UserError, match="no defect 'pitt'"):
        Photograph("cast", seed=0, kind="pitt")
    with pytest.raises(UserError, match="40 x 40 pixels have no room for a defect"):
        Photograph("cast", seed=0, kind="pit", size=(40, 40))
