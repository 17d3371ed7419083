"""Models that see images in the illumination of good ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad import models
from jaxad.data.pipeline import BatchLoader
from jaxad.models.illumination import COLLECTION, fit_reference, normalised


@pytest.fixture(scope="module")
def good():
    rng = np.random.default_rng(0)
    scene = 60 + 100 * rng.random((16, 24, 3))
    return np.clip(scene + rng.normal(0, 5, (66, 16, 24, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def plain():
    return models.build("pca", (16, 24, 3), components=3)


def test_the_reference_is_the_average_of_all_images(good):
    """Of more than one batch, the last of which is filled up."""
    unit = good / 255.0
    reference = fit_reference(BatchLoader(good))
    means, deviations = unit.mean(axis=(1, 2, 3)), unit.std(axis=(1, 2, 3))
    np.testing.assert_allclose(reference.mean, means.mean(), rtol=1e-6)
    np.testing.assert_allclose(reference.deviation, deviations.mean(), rtol=1e-5)
    shapes = (unit - means[:, None, None, None]) / deviations[:, None, None, None]
    want = shapes.mean(axis=(0, 3)) * deviations.mean() + means.mean()
    np.testing.assert_allclose(reference.luminance, want, atol=1e-5)


@pytest.mark.parametrize("kind", ["level", "gradient"])
def test_scores_do_not_see_the_light(plain, good, kind):
    model = normalised(plain, kind)
    variables = model.fit(BatchLoader(good))
    brighter = (good[:4].astype(int) + 10).astype(np.uint8)
    darker = np.rint(0.8 * good[:4]).astype(np.uint8)
    score = lambda images, of=model, v=variables: np.asarray(
        of.detect(v, jnp.asarray(images)).maps["l1"].mean(axis=(1, 2))
    )
    without = plain.fit(BatchLoader(good))
    for images in (brighter, darker):
        assert (score(images, plain, without) > 1.5 * score(good[:4], plain, without)).all()
        np.testing.assert_allclose(score(images), score(good[:4]), rtol=0.05)


def test_a_start_from_data_sees_corrected_images(plain, good):
    seen = []

    def initialise(variables, batches):
        seen.extend(np.asarray(batch.image) for batch in batches)
        return variables

    own = plain._replace(fit=None, initialise=initialise)
    model = normalised(own, "level")
    variables = model.initialise(model.init(jax.random.key(0)), BatchLoader(good))
    reference = variables[COLLECTION]
    images = np.concatenate(seen)[: len(good)]
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), reference["mean"], atol=1e-4)
    none = normalised(plain._replace(fit=None), "level")
    assert none.initialise(none.init(jax.random.key(0)), BatchLoader(good))[COLLECTION]
