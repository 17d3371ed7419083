"""Tiles of photographs: where they lie, what they show, how their maps share the pixels."""

import itertools
import pathlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from jaxad.data import photographs as photographs_lib
from jaxad.data.cache import prepare_images
from jaxad.data.crop import Box
from jaxad.data.images import decode, resize
from jaxad.data.photographs import Photograph, Reading
from jaxad.data.pipeline import training_batches
from jaxad.data.rows import ImageRows
from jaxad.data.table import Sample
from jaxad.data.tiled import TiledImages, check_large_enough
from jaxad.data.tiles import Tiling, cut_tile, tiling_of
from jaxad.data.unreadable import UnreadableImages
from jaxad.run.errors import UserError

COLOUR = Reading(3)


def picture(seed, size=(70, 90), channels=3):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*size, channels), dtype=np.uint8)


def save(path, array, **options):
    Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(path, **options)
    return Sample(str(path), "train", "good")


@pytest.mark.parametrize("length", [1, 31, 32, 33, 57, 100, 101])
@pytest.mark.parametrize("overlap", [0, 1, 7, 16])
def test_tiles_cover_a_side_and_share_every_pixel(length, overlap):
    tiling = Tiling(32, overlap)
    starts = tiling.starts(length)
    assert starts[0] == 0 and starts[-1] == max(0, length - 32)
    assert all(b - a <= 32 - overlap for a, b in itertools.pairwise(starts))
    total = np.zeros(starts[-1] + 32)
    for start, weights in zip(starts, tiling.weights(length), strict=True):
        assert (weights >= 0).all()
        total[start : start + 32] += weights
    np.testing.assert_allclose(total, 1.0, atol=1e-6)  # sums of float32


def test_the_outer_quarter_of_an_overlap_is_not_used_and_the_middle_fades():
    first, second, last = Tiling(32, 16).weights(64)  # at 0, 16, 32
    assert (first[:20] == 1).all() and (first[28:] == 0).all()
    assert (second[:4] == 0).all() and (last[12:] == 1).all()
    fading = first[20:28]
    np.testing.assert_allclose(fading, np.cos(np.pi / 2 * (np.arange(8) + 0.5) / 8) ** 2, atol=1e-6)


def test_a_tile_goes_on_as_its_mirror_image():
    rows = picture(0, (10, 40))
    tile = cut_tile(rows, Box(0, 8, 32, 40))
    padded = np.pad(rows[:, 8:], [(0, 22), (0, 0), (0, 0)], mode="symmetric")
    np.testing.assert_array_equal(tile, padded)


@pytest.mark.parametrize(
    ("tiles", "size", "sentence"),
    [
        ((64, 40), (32, 32), "overlap of at most half the side"),
        ((0, 4), (32, 32), "must be .side, overlap."),
        ((64, 8), (32, 48), "tiles are square, but data.image_size is 32 x 48"),
    ],
)
def test_what_are_no_tiles_is_refused(tiles, size, sentence):
    with pytest.raises(UserError, match=sentence):
        tiling_of(tiles, size)


def test_photographs_smaller_than_a_tile_are_refused_when_all_are():
    check_large_enough([(10, 20), (5, 64)], Tiling(64))
    with pytest.raises(UserError, match=r"side of 64 .* largest good training image is 10 x 63"):
        check_large_enough([(10, 63), (30, 40)], Tiling(64))


LAYOUTS = {
    "strips": {"rowsperstrip": 16},
    "deflated": {"rowsperstrip": 16, "compression": "zlib", "predictor": True},
    "tiled": {"tile": (32, 16)},
    "one strip": {},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("stored", "seen"), [(3, 3), (1, 3), (3, 1)])
def test_windows_of_a_tiff_hold_what_the_decoder_gives(tmp_path, monkeypatch, layout, stored, seen):
    array, path = picture(1, channels=stored), tmp_path / "a.tif"
    kind = "rgb" if stored == 3 else "minisblack"
    tifffile.imwrite(
        path, array[..., 0] if stored == 1 else array, photometric=kind, **LAYOUTS[layout]
    )
    monkeypatch.setattr(photographs_lib, "WINDOWED_ABOVE", 0)
    monkeypatch.setattr(photographs_lib, "decode", None)  # must not be needed
    photograph = Photograph(path, Reading(seen, crop=(0.1, 0.2, 0.9, 1.0)))
    whole = decode(path, channels=seen)[photograph.box.slices]
    assert photograph.size == whole.shape[:2] == (56, 72)
    for start, stop in ((0, 56), (5, 6), (30, 999)):
        np.testing.assert_array_equal(photograph.rows(start, stop), whole[start:stop])


def test_other_files_are_decoded_whole_and_a_damaged_tiff_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(photographs_lib, "WINDOWED_ABOVE", 0)
    array = picture(2)
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees to the right
    turned = Photograph(save(tmp_path / "a.png", array, exif=exif).path, COLOUR)
    assert turned.size == (90, 70)
    np.testing.assert_array_equal(turned.rows(0, 90), np.rot90(array, -1))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, photometric="rgb", compression="zlib", rowsperstrip=16)
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[2]
    data = bytearray(path.read_bytes())
    data[offset : offset + 20] = bytes(20)
    path.write_bytes(data)
    photograph = Photograph(path, COLOUR)
    photograph.rows(0, 16)
    with pytest.raises(UserError, match=r"a.tif cannot be read, it may be damaged"):
        photograph.rows(30, 50)


@pytest.fixture
def samples(tmp_path):
    """Photographs of different sizes, one of them smaller than a tile."""
    sizes = [(70, 90), (32, 200), (20, 24), (65, 32)]
    return [save(tmp_path / f"{i}.png", picture(i, size)) for i, size in enumerate(sizes)]


def test_prepared_and_streamed_tiles_are_the_squares_of_the_photographs(samples, tmp_path):
    how = {"image_size": (16, 16)}
    memory = prepare_images(samples, channels=3, tiling=Tiling(32), **how)
    options = {"memory_limit_mb": 0, "cache_dir": tmp_path / "cache"}
    mapped = prepare_images(samples, channels=3, tiling=Tiling(32), **how, **options)
    streamed = TiledImages(samples, tiling=Tiling(32), reading=COLOUR, **how)
    assert isinstance(mapped, np.memmap)
    assert memory.shape == mapped.shape == streamed.shape == (9 + 7 + 1 + 3, 16, 16, 3)
    np.testing.assert_array_equal(memory, mapped)
    np.testing.assert_array_equal(memory, streamed[np.arange(20)])
    whole = decode(samples[0].path, channels=3)
    np.testing.assert_array_equal(memory[4], resize(whole[32:64, 32:64].copy(), (16, 16)))
    np.testing.assert_array_equal(memory[8], resize(whole[38:70, 58:90].copy(), (16, 16)))


def test_unreadable_photographs_are_all_named(samples, tmp_path):
    bad = [Sample(str(tmp_path / name), "train", "good") for name in ("bad1.png", "bad2.png")]
    for sample in bad:
        pathlib.Path(sample.path).write_text("no image")
    with pytest.raises(UnreadableImages, match=r"2 of 6 images.*bad1.*bad2"):
        prepare_images([*samples, *bad], image_size=(16, 16), channels=3, tiling=Tiling(32))
    streamed = TiledImages([*samples, *bad], tiling=Tiling(32), reading=COLOUR, image_size=(16, 16))
    with pytest.raises(UnreadableImages, match=r"2 of 6 images.*bad1.*bad2"):
        streamed[:]


@pytest.mark.parametrize(
    "size", [(70, 90), (20, 20), (140, 180)], ids=["same", "smaller", "larger"]
)
def test_a_photograph_that_is_exchanged_is_named(samples, size):
    tiles = TiledImages(samples, tiling=Tiling(32), reading=COLOUR, image_size=(16, 16))
    first = tiles[:]
    np.testing.assert_array_equal(tiles[:], first)
    known = tiles.known_digests()
    assert sorted(known) == [0, 1, 2, 3]
    save(samples[0].path, picture(9, size))
    tiles._open.clear()  # as where others have taken its room
    with pytest.raises(UserError, match=r"0\.png has changed since it was first read"):
        tiles[:1]
    # Begun again, only what is known from before can tell.
    again = TiledImages(samples, tiling=Tiling(32), reading=COLOUR, image_size=(16, 16))
    again.digests.update(known)
    with pytest.raises(UserError, match=r"0\.png has changed since it was first read"):
        again[:]


def test_a_photograph_that_is_exchanged_behind_its_header_is_named(samples):
    photograph = Photograph(samples[0].path, COLOUR)
    save(samples[0].path, picture(9, (20, 20)))
    with pytest.raises(UserError, match=r"0\.png has been replaced while it was read"):
        photograph.rows(0, 32)


def test_streamed_tiles_are_drawn_from_a_few_photographs_at_a_time(samples, monkeypatch):
    monkeypatch.setattr("jaxad.data.tiled.GROUP_PIXELS", 7000)  # the first; two; the last
    tiles = TiledImages(samples, tiling=Tiling(32), image_size=(16, 16), reading=COLOUR)
    assert len(np.unique(tiles.groups)) == 3
    for images in (tiles, ImageRows(tiles, np.arange(1, 20))):
        batches = training_batches(images, batch_size=1, seed=0, pipeline="memory")
        rows = np.array([int(next(batches).index[0]) for _ in range(2 * len(images))])
        for epoch in rows.reshape(2, -1):
            assert sorted(epoch) == list(range(len(images)))
            groups = images.groups[epoch]
            assert np.count_nonzero(np.diff(groups)) == 2  # one group after the other
            assert not (np.diff(epoch[groups == 0]) > 0).all()  # at random within
        assert len(tiles._open) <= 4
