"""Poses by moments, against scikit-image's measures and scipy's rotation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import regionprops

from jaxad.ops.alignment import (
    Frame,
    Pose,
    difference,
    extents,
    from_pose,
    pictures_from_pose,
    pose_of,
    rim_colour,
    to_pose,
)


def wedge(angle, *, centre=(0.0, 0.0), size=(64, 64), contrast=0.6, colour=0.2):
    """A wedge that points along an angle (degrees), on plain gray; smooth, exact at any pose."""
    y, x = np.mgrid[: size[0], : size[1]]
    dy, dx = y - (size[0] - 1) / 2 - centre[0], x - (size[1] - 1) / 2 - centre[1]
    a = np.deg2rad(angle)
    along, across = np.cos(a) * dx + np.sin(a) * dy, np.cos(a) * dy - np.sin(a) * dx
    half = 7 * (1 - (along + 12) / 36)  # wide at one end, a point at the other
    edge = np.minimum.reduce([half - np.abs(across), along + 12, 24 - along])
    return (colour + contrast / (1 + np.exp(-3 * edge)))[..., None].astype(np.float32)


ANGLES = [0, 30, 90, 135, 180, 200, 270, 315]


@pytest.fixture(scope="module")
def wedges():
    shifts = np.random.default_rng(0).uniform(-8, 8, (len(ANGLES), 2))
    return jnp.stack([wedge(a, centre=c) for a, c in zip(ANGLES, shifts, strict=True)]), shifts


def pose_at(row, column, angle, count=1):
    """As many poses of one kind."""
    values = (row, column, np.cos(angle), np.sin(angle))
    return Pose(*(jnp.full(count, value, jnp.float32) for value in values))


def angle_of(pose):
    return np.arctan2(pose.sine, pose.cosine)


def inside_of(images):
    return difference(images) > 0.25


def test_poses_are_the_moments_of_scikit_image(wedges):
    images, _ = wedges
    inside = inside_of(images)
    pose = pose_of(inside)
    for i, mask in enumerate(np.asarray(inside)):
        (region,) = regionprops(mask.astype(int))
        middle = np.array(region.centroid) - 31.5
        np.testing.assert_allclose([pose.row[i], pose.column[i]], middle, atol=1e-4)
        # Its orientation is from the rows; both are known up to half a turn.
        theirs = np.pi / 2 - region.orientation
        turn = (float(angle_of(pose)[i]) - theirs + np.pi / 2) % np.pi - np.pi / 2
        assert abs(turn) < 1e-3


def test_the_end_that_lies_farther_gives_the_direction(wedges):
    """Of a wedge the point; within two degrees, for pixels of the mask are whole."""
    pose = pose_of(inside_of(wedges[0]))
    turn = np.rad2deg(angle_of(pose)) - np.array(ANGLES)
    assert (np.abs((turn + 180) % 360 - 180) < 2).all()


def test_all_are_brought_to_one_pose(wedges):
    images, _ = wedges
    turned = to_pose(images, pose_of(inside_of(images)))
    # Bilinear samples of a smooth edge, and half a pixel where the mask jumps.
    assert np.abs(turned - turned[:1]).max() < 0.35
    assert np.abs(turned - turned[:1]).mean() < 0.01 < np.abs(images - images[:1]).mean()
    again = pose_of(inside_of(turned))
    np.testing.assert_allclose(again.row, 0, atol=0.3)
    np.testing.assert_allclose(again.column, 0, atol=0.3)
    np.testing.assert_allclose(again.sine, 0, atol=0.04)


def test_turning_is_that_of_scipy():
    image = wedge(0)[..., 0]
    pose = pose_at(0.0, 0.0, np.deg2rad(30))
    found = np.asarray(to_pose(jnp.asarray(image)[None, ..., None], pose))[0, ..., 0]
    expected = ndimage.rotate(image, 30, reshape=False, order=1, cval=float(image[0, 0]))
    inner = slice(12, -12), slice(12, -12)  # scipy blends the rim otherwise
    np.testing.assert_allclose(found[inner], expected[inner], atol=1e-4)


@pytest.mark.parametrize("frame", [Frame(), Frame(0.8, 3.0, -2.0)])
def test_maps_go_back_where_they_belong(wedges, frame):
    """A smooth map of the image, seen turned, is the map of the image again."""
    images, _ = wedges
    maps = images[..., 0]
    pose = pose_of(inside_of(images))
    turned = to_pose(maps[..., None], pose, frame)[..., 0]
    back = from_pose(turned, pose, frame)
    inside = np.asarray(inside_of(images))
    # Two bilinear interpolations of an edge of two pixels.
    assert np.abs(np.asarray(back) - np.asarray(maps))[inside].mean() < 0.03
    lowest = np.asarray(turned).min(axis=(1, 2))
    assert (np.asarray(back) >= lowest[:, None, None] - 1e-6).all()


@pytest.mark.parametrize("frame", [Frame(), Frame(0.7, 2.0, -4.0)])
def test_a_point_is_found_where_it_was(frame):
    """The highest pixel of a turned map comes back to within a pixel, at any size and angle."""
    rng = np.random.default_rng(1)
    for size in ((64, 64), (41, 57)):
        y, x = np.mgrid[: size[0], : size[1]]
        for _ in range(6):
            at = rng.integers(12, np.array(size) - 12)
            spot = np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 8.0)[None].astype(np.float32)
            pose = pose_at(*rng.uniform(-3, 3, 2), rng.uniform(0, 6.28))
            turned = to_pose(jnp.asarray(spot)[..., None], pose, frame)[..., 0]
            back = np.asarray(from_pose(turned, pose, frame))[0]
            if np.asarray(turned).max() < 0.9:
                continue  # beyond the frame
            found = np.unravel_index(back.argmax(), size)
            assert np.abs(np.array(found) - at).max() <= 1


def test_the_identity_changes_nothing(wedges):
    images, _ = wedges
    still = pose_at(0.0, 0.0, 0.0, len(images))
    np.testing.assert_allclose(to_pose(images, still), images, atol=1e-6)
    np.testing.assert_allclose(from_pose(images[..., 0], still), images[..., 0], atol=1e-6)
    np.testing.assert_allclose(pictures_from_pose(images, 0 * images, still), images, atol=1e-6)


def test_what_was_not_seen_is_the_image_or_the_lowest_value():
    images = jnp.full((1, 32, 32, 1), 0.5)
    pose = pose_at(20.0, 0.0, 0.0)
    pictures = pictures_from_pose(jnp.full_like(images, 0.9), images, pose)
    np.testing.assert_allclose(pictures[0, :19], 0.5, atol=1e-6)
    np.testing.assert_allclose(pictures[0, 21:], 0.9, atol=1e-6)
    maps = jnp.linspace(1.0, 2.0, 32 * 32).reshape(1, 32, 32)
    np.testing.assert_allclose(from_pose(maps, pose)[0, :19], 1.0, atol=1e-6)


def test_nothing_and_round_things_have_a_pose_and_gradients():
    y, x = np.mgrid[:31, :31] - 15
    disc = jnp.asarray(np.hypot(y, x) < 8)[None]
    for inside in (disc, jnp.zeros_like(disc)):
        pose = pose_of(inside)
        assert all(np.isfinite(values).all() for values in pose)
        np.testing.assert_allclose([pose.row, pose.column], 0, atol=1e-5)

    def total(image):
        pose = pose_of(difference(image) > 0.1)
        return to_pose(image, pose).sum()

    for image in (jnp.full((1, 31, 31, 1), 0.5), 0.5 * disc[..., None].astype(jnp.float32)):
        assert np.isfinite(jax.grad(total)(image)).all()


def test_extents_and_rim():
    inside = jnp.zeros((1, 20, 30), bool).at[0, 5:9, 4:20].set(True)
    pose = pose_at(0.0, 0.0, 0.0)
    np.testing.assert_allclose(extents(inside, pose), [[5 - 9.5, 8 - 9.5, 4 - 14.5, 19 - 14.5]])
    image = jnp.zeros((1, 8, 8, 3)).at[0, 1:-1, 1:-1].set(9.0).at[0, 0, 0].set(5.0)
    np.testing.assert_array_equal(rim_colour(image), [[0.0, 0.0, 0.0]])
