import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from jaxad.evaluation import learned
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.evaluate import evaluate
from jaxad.evaluation.inputs import read_inputs
from jaxad.run.folder import RunFolder
from jaxad.training.inputs import decode


@pytest.fixture(scope="module")
def loaded(trained):
    """(detector, test set) of the shared run; no test changes them."""
    detector = Detector.load(trained[0])
    return detector, read_inputs(RunFolder(trained[0]), detector.config, None)


def examine(loaded, **changed):
    """Examines the detector with other functions of its model."""
    detector, test = loaded
    other = Detector(
        detector.config, detector.variables, detector.model._replace(**changed), step=detector.step
    )
    origin, indices = learned.images_to_examine(test.samples, other)
    images = test.images[indices]
    return learned.examine(
        other, test, origin=origin, images=images, reconstructions=detector(images).reconstruction
    )


def test_good_test_images_and_their_reconstructions_are_taken(loaded):
    detector, test = loaded
    content = examine(loaded)
    good = [i for i, sample in enumerate(test.samples) if not sample.label]
    np.testing.assert_array_equal(content.images, test.images[good])
    whole = detector(test.images)
    np.testing.assert_array_equal(content.reconstructions, whole.reconstruction[good])
    assert content.origin == "good test images" and content.notes == []
    # As many as the batch size: what fits the memory in detection fits it here.
    assert detector.batch_size == 4 and len(content.samples) == len(content.photographs) == 4
    assert content.samples.dtype == content.photographs.dtype == np.uint8
    np.testing.assert_array_equal(content.samples, examine(loaded).samples)


def test_similarity_is_that_of_each_image_with_its_reconstruction(loaded):
    content = examine(loaded)
    # Wang's form in float64 by scikit-image; float32 has 1e-5 where images are flat.
    expected = [
        structural_similarity(
            image / 255, shown / 255, channel_axis=-1, data_range=1.0, gaussian_weights=True,
            use_sample_covariance=False, full=True,
        )[1][5:-5, 5:-5].mean()
        for image, shown in zip(content.images, content.reconstructions, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(content.similarity, expected, rtol=0, atol=1e-4)
    assert content.similarity.shape == (4,) and np.ptp(content.similarity) > 0
    small = content.images[:, :10]
    assert learned._similarity(small, small) is None
    assert learned._similarity(content.images[:0], content.images[:0]) is None


def test_training_photographs_are_training_images_spread_over_the_list(loaded):
    detector, test = loaded
    names = [test.record["training"][i] for i in (0, 5, 9, 14)]  # of 15, as linspace rounds
    by_name = {test.table.relative(sample): sample for sample in test.table.train_good()}
    expected = decode([by_name[n] for n in names], detector.config.data, (0, 65535))
    np.testing.assert_array_equal(examine(loaded).photographs, expected)


def test_samples_of_patches_are_held_beside_the_middle_of_the_images(loaded):
    whole = examine(loaded).photographs
    content = examine(loaded, sample=lambda variables, key, n: jnp.full((n, 10, 12, 3), 0.5))
    assert np.unique(content.samples).tolist() == [128]
    np.testing.assert_array_equal(content.photographs, whole[:, 11:21, 10:22])


def test_where_no_test_image_is_good_the_page_says_so(loaded):
    detector, test = loaded
    bad = [i for i, sample in enumerate(test.samples) if sample.label]
    origin, indices = learned.images_to_examine([test.samples[i] for i in bad], detector)
    assert origin == "test images (none is good)" and indices == [0, 1, 2, 3]


def refuse(*arguments):
    raise ValueError("codes were never\nlearned, and a trace follows")


def test_a_model_that_refuses_costs_a_note_and_nothing_else(loaded):
    content = examine(loaded, sample=refuse, diagnostics=refuse)
    assert content.samples is None and content.photographs is None and content.diagnostics == {}
    assert content.notes == ["No samples: codes were never.", "No diagnostics: codes were never."]
    assert len(content.images) == 4


@pytest.mark.parametrize(
    "values, reason",
    [
        (jnp.zeros((4, 32, 32)), "shape"),
        (jnp.full((4, 32, 32, 3), jnp.nan), "not finite"),
    ],
)
def test_samples_that_are_no_images_are_left_out(loaded, values, reason):
    content = examine(loaded, sample=lambda variables, key, n: values)
    assert content.samples is None and reason in content.notes[0]


def test_diagnostics_are_jitted_kept_by_kind_and_brought_to_types_of_numpy(loaded):
    traced = []

    def diagnostics(variables, images):
        traced.append(isinstance(images, jnp.ndarray) and not isinstance(images, np.ndarray))
        return {
            "half": jnp.ones(3, jnp.bfloat16),
            "map": jnp.mean(images / 255.0, axis=-1),
            "wrong": jnp.zeros((1, 2, 3, 4, 5)),
        }

    content = examine(loaded, diagnostics=diagnostics)
    assert traced == [True]
    assert content.diagnostics.keys() == {"half", "map"}
    assert content.diagnostics["half"].dtype == np.float32
    np.testing.assert_allclose(
        content.diagnostics["map"], content.images.mean(-1) / 255, rtol=0, atol=1e-6
    )
    assert len(content.notes) == 1 and "Left out: the diagnostic 'wrong'" in content.notes[0]


def test_the_page_of_an_evaluation_shows_all_of_it(run):
    evaluate(run)
    page = (run / "report.html").read_text()
    for words in ("Reconstructions", "Good training images", "first axes", "share of variance"):
        assert words in page
    assert "No samples" not in page


def test_training_images_that_are_gone_or_broken_cost_a_note(run, data, tmp_path):
    evaluate(run)  # leaves the calibration, which needs the held-out images
    moved = shutil.copytree(data, tmp_path / "moved")
    for name in json.loads((run / "data.json").read_text())["training"]:
        path = moved / name
        path.write_bytes(bytes(path.stat().st_size))  # another size would be refused before
    evaluate(run, data_root=str(moved))
    assert "No training images beside the samples: " in (run / "report.html").read_text()
    for path in (moved / "train" / "good").glob("*.png"):
        path.rename(path.with_name(f"other {path.name}"))
    evaluate(run, data_root=str(moved))
    page = (run / "report.html").read_text()
    assert "No training image is left in the data set" in page and 'id="samples"' in page
