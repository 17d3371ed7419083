"""Tiles and crops against plain slicing."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.ops.tiles import (
    average_tiles,
    bands as tile_bands,
    extract_tiles,
    random_crops,
    tile_positions,
)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((2, 13, 11, 3)).astype(np.float32)


def test_positions_of_an_example():
    # 10 = 4 + 3 + 3 fits exactly; of 9 columns the last tile is moved back by one.
    rows, columns = [0, 3, 6], [0, 3, 5]
    assert tile_positions(10, 9, 4, 3) == tuple((r, c) for r in rows for c in columns)
    assert tile_positions(4, 4, 4, 4) == ((0, 0),)
    assert tile_positions(512, 512, 128, 30)[-1] == (384, 384)


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=100, deadline=None)
def test_positions_cover_every_pixel_without_repetition(data):
    tile = data.draw(st.integers(1, 9))
    h, w = (data.draw(st.integers(tile, 25)) for _ in range(2))
    stride = data.draw(st.integers(1, tile))
    positions = tile_positions(h, w, tile, stride)
    covered = np.zeros((h, w), int)
    for row, column in positions:
        assert 0 <= row <= h - tile
        assert 0 <= column <= w - tile
        covered[row : row + tile, column : column + tile] += 1
    assert covered.min() >= 1
    assert len(set(positions)) == len(positions)


def test_tiles_are_slices_of_any_dtype(images):
    for x in (images, (255 * images).astype(np.uint8)):
        tiles = jax.jit(extract_tiles, static_argnums=(1, 2))(x, 5, 3)
        positions = tile_positions(13, 11, 5, 3)
        expected = np.stack([x[:, r : r + 5, c : c + 5] for r, c in positions], axis=1)
        assert tiles.dtype == x.dtype
        np.testing.assert_array_equal(tiles, expected)


@pytest.mark.parametrize(("tile", "stride"), [(5, 3), (4, 4), (11, 1), (6, 5), (1, 1)])
def test_averaging_the_tiles_of_an_image_gives_it_back(images, tile, stride):
    back = average_tiles(extract_tiles(images, tile, stride), (13, 11), stride)
    # Up to 30 equal values are added and divided by their number.
    np.testing.assert_allclose(back, images, rtol=1e-6)


def test_overlaps_are_averaged():
    tiles = np.random.default_rng(1).random((2, 9, 4, 4, 2)).astype(np.float32)
    total, count = np.zeros((2, 10, 9, 2)), np.zeros((10, 9))
    for i, (r, c) in enumerate(tile_positions(10, 9, 4, 3)):
        total[:, r : r + 4, c : c + 4] += tiles[:, i]
        count[r : r + 4, c : c + 4] += 1
    actual = jax.jit(average_tiles, static_argnums=(1, 2))(tiles, (10, 9), 3)
    np.testing.assert_allclose(actual, total / count[None, :, :, None], rtol=1e-6)


def test_the_gradient_of_the_average_is_the_share_of_each_tile(images):
    tiles = extract_tiles(images, 5, 3)
    gradient = jax.grad(lambda x: jnp.sum(average_tiles(x, (13, 11), 3)))(tiles)
    count = np.zeros((13, 11), np.float32)
    for r, c in tile_positions(13, 11, 5, 3):
        count[r : r + 5, c : c + 5] += 1
    shares = extract_tiles(np.tile(1 / count[None, :, :, None], (2, 1, 1, 3)), 5, 3)
    np.testing.assert_allclose(gradient, shares, rtol=1e-6)


def test_average_of_bfloat16_is_summed_in_float32(images):
    tiles = extract_tiles(jnp.bfloat16(images), 5, 1)
    back = average_tiles(tiles, (13, 11), 1)
    np.testing.assert_array_equal(back, jnp.bfloat16(images))


def test_crops_are_slices_that_depend_on_their_key_alone(images):
    keys = jax.random.split(jax.random.key(0), 2)
    crops = jax.jit(random_crops, static_argnums=2)(images, keys, 6)
    for image, crop in zip(images, crops, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(image, (6, 6), axis=(0, 1))
        windows = np.moveaxis(windows, 2, -1).reshape(-1, 6, 6, 3)
        assert np.any(np.all(windows == np.asarray(crop), axis=(1, 2, 3)))
    alone = random_crops(images[1:], keys[1:], 6)
    np.testing.assert_array_equal(alone[0], crops[1])


def test_every_place_is_drawn_as_often():
    # The value of a pixel is its index: a crop of one pixel tells where it was taken.
    image = jnp.arange(12.0).reshape(1, 3, 4, 1)
    images = jnp.tile(image, (6000, 1, 1, 1))
    places = random_crops(images, jax.random.split(jax.random.key(1), 6000), 1).ravel()
    counts = np.bincount(np.asarray(places, int), minlength=12)
    # 500 expected; five standard deviations of a binomial are 107.
    assert counts.min() > 393
    assert counts.max() < 607
    whole = random_crops(image[:, :, :3], jax.random.split(jax.random.key(2), 1), 3)
    np.testing.assert_array_equal(whole, image[:, :, :3])


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_named(images):
    with pytest.raises(ValueError, match="leave gaps"):
        tile_positions(10, 10, 4, 5)
    with pytest.raises(ValueError, match="between 1"):
        extract_tiles(images, 4, 0)
    with pytest.raises(ValueError, match="do not fit"):
        extract_tiles(images, 12, 4)
    with pytest.raises(ValueError, match="has 12 tiles"):
        average_tiles(np.zeros((1, 9, 5, 5, 1), np.float32), (13, 11), 3)
    with pytest.raises(ValueError, match="square"):
        average_tiles(np.zeros((1, 9, 5, 4, 1), np.float32), (13, 11), 3)
    with pytest.raises(ValueError, match="does not fit"):
        random_crops(images, jax.random.split(jax.random.key(0), 2), 12)


@pytest.mark.parametrize(("size", "stride"), [((41, 30), 4), ((24, 17), 3), ((33, 33), 8)])
def test_bands_have_every_tile_once(size, stride):
    images = np.random.default_rng(0).integers(0, 256, (3, *size, 2), dtype=np.uint8)
    cut = lambda part: np.asarray(extract_tiles(part, tile=8, stride=stride)).reshape(-1, 128)
    whole = cut(images)
    (all_of_them,) = tile_bands(images, 8, stride, values=whole.size)
    assert all_of_them is images
    limit = whole.size // 9
    found = list(tile_bands(images, 8, stride, values=limit))
    assert all(len(band) == 1 for band in found) and len(found) > 8
    np.testing.assert_array_equal(np.concatenate([cut(band) for band in found]), whole)
    assert max(cut(band).size for band in found) <= limit
