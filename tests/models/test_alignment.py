"""Models that see parts in one pose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxad
from jaxad import models
from jaxad.data.batch import Batch
from jaxad.data.pipeline import BatchLoader
from jaxad.evaluation.detector import Detector
from jaxad.models.alignment import COLLECTION, Alignment, aligned, alignment_in_words, fit_alignment
from jaxad.models.base import LossOutput
from jaxad.run.errors import UserError

SIZE = 40


def wedge(angle, centre=(0.0, 0.0), *, notch=False):
    """A wedge on gray, at a place and an angle; with a hole in it where it is defective."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    dy, dx = y - centre[0], x - centre[1]
    along, across = np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx
    half = 5 * (1 - (along + 8) / 26)
    edge = np.minimum.reduce([half - np.abs(across), along + 8, 16 - along])
    value = 0.2 + 0.6 / (1 + np.exp(-3 * edge))
    if notch:
        value[np.hypot(along + 4, across) < 2] = 0.45
    return np.rint(255 * np.repeat(value[..., None], 3, axis=2)).astype(np.uint8)


def some(count, seed, *, turn=True, shift=4.0, **options):
    rng = np.random.default_rng(seed)
    poses = [
        (rng.uniform(0, 2 * np.pi) * turn, rng.uniform(-shift, shift, 2)) for _ in range(count)
    ]
    noise = lambda image: np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)
    return np.stack([noise(wedge(angle, centre, **options)) for angle, centre in poses])


@pytest.fixture(scope="module")
def good():
    return some(48, 0)


@pytest.mark.slow
def test_auto_decides_by_what_helps_good_images(good):
    decided = lambda images: alignment_in_words(
        {COLLECTION: fit_alignment(BatchLoader(images), "auto")._asdict()}
    )
    assert "turned and moved" in decided(good)
    assert "moved to one place" in decided(some(48, 1, turn=False))
    assert "as they lie" in decided(some(48, 2, turn=False, shift=0.0))
    texture = np.random.default_rng(3).integers(0, 255, (48, SIZE, SIZE, 3), np.uint8)
    assert "as they lie" in decided(texture)
    assert alignment_in_words({"params": {}}) is None


def test_the_frame_holds_the_parts(good):
    found = fit_alignment(BatchLoader(good), "turn")
    variables = {COLLECTION: found._asdict()}
    seen = []
    plain = models.build("pca", (SIZE, SIZE, 3), components=3)

    def detect(inner, images):
        seen.append(np.asarray(images))
        return plain.detect(inner, images)

    model = aligned(plain._replace(detect=detect), "turn")
    model.detect({**plain.init(jax.random.key(0)), **variables}, jnp.asarray(good[:8]))
    (turned,) = seen
    rim = np.concatenate([turned[:, 0], turned[:, -1], turned[:, :, 0], turned[:, :, -1]], axis=1)
    assert np.abs(rim - 0.2).max() < 0.1, "nothing of a wedge is cut off"
    assert turned.std(axis=0).mean() < 0.3 * (good / 255).std(axis=0).mean()


def test_defects_are_found_where_they_are_at_any_angle(good):
    plain = models.build("pca", (SIZE, SIZE, 3), components=8)
    model = aligned(plain, "auto")
    variables, without = model.fit(BatchLoader(good)), plain.fit(BatchLoader(good))
    fine, bad = some(24, 4), some(24, 4, notch=True)
    score = lambda of, v, images: np.asarray(of.detect(v, jnp.asarray(images)).maps["l1"])
    apart = lambda of, v: np.mean(
        score(of, v, bad).max(axis=(1, 2))[:, None] > score(of, v, fine).max(axis=(1, 2))[None]
    )
    assert apart(model, variables) > 0.95 > 0.9 > apart(plain, without)
    changed = np.abs(bad.astype(int) - fine.astype(int)).max(axis=-1) > 60
    for values, mask in zip(score(model, variables, bad), changed, strict=True):
        place = np.unravel_index(values.argmax(), values.shape)
        rows, columns = np.nonzero(mask)
        assert np.hypot(rows - place[0], columns - place[1]).min() <= 2


def test_reconstructions_lie_as_the_images_do(good):
    model = aligned(models.build("pca", (SIZE, SIZE, 3), components=8), "turn")
    variables = model.fit(BatchLoader(good))
    found = np.asarray(model.detect(variables, jnp.asarray(good[:8])).reconstruction)
    assert np.abs(found - good[:8] / 255).mean() < 0.02


def test_trained_models_see_turned_images(good):
    plain = models.build("pca", (SIZE, SIZE, 3), components=3)
    seen = []

    def loss(variables, batch, keys, train):
        seen.append(np.asarray(batch.image))
        zeros = jnp.zeros(len(keys))
        return LossOutput(zeros, {}, {}, {}, {})

    model = aligned(plain._replace(fit=None, loss=loss), "turn")
    variables = model.initialise(model.init(jax.random.key(0)), BatchLoader(good))
    batch = Batch(jnp.asarray(good[:4]), np.arange(4), np.ones(4, bool))
    model.loss(variables, batch, jax.random.split(jax.random.key(1), 4), True)
    (images,) = seen
    assert images.std(axis=0).mean() < 0.3 * (good[:4] / 255).std(axis=0).mean()


def test_images_left_out_have_their_maps_turned_back(tmp_path, good):
    keys = {"data.root": "", "data.align": "turn", "data.image_size": (SIZE, SIZE)}
    keys |= {"model.components": 6, "train.devices": 1}
    run = jaxad.train(jaxad.load_config("pca", keys), tmp_path / "run", good)
    detector = Detector.load(run.path)
    assert float(Alignment(**detector.variables[COLLECTION]).turn) == 1.0
    fine, bad = some(6, 5), some(6, 5, notch=True)
    predictions = jaxad.load_detector(run.path).predict(list(np.concatenate([fine, bad])))
    assert sum(one.decision for one in predictions[6:]) >= 5
    assert sum(one.decision for one in predictions[:6]) <= 1


def test_round_parts_have_no_direction():
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    disc = np.where(np.hypot(y, x) < 9, 200, 50).astype(np.uint8)
    images = np.repeat(np.repeat(disc[None, ..., None], 3, axis=3), 12, axis=0)
    with pytest.raises(ValueError, match="have no direction; take shift, or auto"):
        fit_alignment(BatchLoader(images), "turn")
    assert float(fit_alignment(BatchLoader(images), "auto").turn) == 0.0


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"data.tiles": (32, 8)}, "data.align is for whole images"),
        ({"train.optimizer": "none"}, "data.align=auto is fitted to training images"),
    ],
)
def test_what_cannot_be_aligned_is_named(keys, said, good, tmp_path):
    own = {"data.align": "auto", "data.image_size": (SIZE, SIZE), "train.devices": 1}
    config = jaxad.load_config("cae:small", own | keys)
    with pytest.raises(UserError, match=said):
        jaxad.train(config, tmp_path / "run", good)
