import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.evaluation import learned
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.evaluate import evaluate, run_table
from jaxad.run.folder import RunFolder
from jaxad.training.inputs import decode


@pytest.fixture(scope="module")
def asked(trained):
    """(detector, arguments of ask) of the shared run; no test changes them."""
    run = RunFolder(trained[0])
    detector = Detector.load(trained[0])
    table = run_table(run, detector.config, None)
    record = run.read_json(run.data)
    samples = list(table.test())
    images = decode(samples, detector.config.data, tuple(record["range_16bit"]))
    return detector, (table, record, samples, images, detector(images))


def ask(asked, **changed):
    """Asks the detector with other functions of its model."""
    detector, arguments = asked
    other = Detector(
        detector.config, detector.variables, detector.model._replace(**changed), step=detector.step
    )
    return learned.ask(other, *arguments)


def test_good_test_images_and_their_reconstructions_are_taken(asked):
    detector, (_, _, samples, images, findings) = asked
    content = ask(asked)
    good = [i for i, sample in enumerate(samples) if not sample.label]
    np.testing.assert_array_equal(content.images, images[good])
    np.testing.assert_array_equal(content.reconstructions, findings.reconstruction[good])
    assert content.origin == "good test images" and content.notes == []
    # As many as the batch size: what fits the memory in detection fits it here.
    assert detector.batch_size == 4 and len(content.samples) == len(content.photographs) == 4
    assert content.samples.dtype == content.photographs.dtype == np.uint8
    np.testing.assert_array_equal(content.samples, ask(asked).samples)


def test_training_photographs_are_training_images_spread_over_the_list(asked):
    detector, (table, record, *_) = asked
    names = [record["training"][i] for i in (0, 5, 9, 14)]  # of 15, as linspace rounds
    by_name = {table.relative(sample): sample for sample in table.train_good()}
    expected = decode([by_name[n] for n in names], detector.config.data, (0, 65535))
    np.testing.assert_array_equal(ask(asked).photographs, expected)


def test_samples_of_patches_are_held_beside_the_middle_of_the_images(asked):
    whole = ask(asked).photographs
    content = ask(asked, sample=lambda variables, key, n: jnp.full((n, 10, 12, 3), 0.5))
    assert np.unique(content.samples).tolist() == [128]
    np.testing.assert_array_equal(content.photographs, whole[:, 11:21, 10:22])


def test_where_no_test_image_is_good_the_page_says_so(asked):
    detector, (table, record, samples, images, findings) = asked
    bad = [i for i, sample in enumerate(samples) if sample.label]
    arguments = ([samples[i] for i in bad], images[bad])
    found = findings._replace(reconstruction=findings.reconstruction[bad])
    content = learned.ask(detector, table, record, *arguments, found)
    assert content.origin == "test images (none is good)" and len(content.images) == 4


def refuse(*arguments):
    raise ValueError("codes were never\nlearned, and a trace follows")


def test_a_model_that_refuses_costs_a_note_and_nothing_else(asked):
    content = ask(asked, sample=refuse, diagnostics=refuse)
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
def test_samples_that_are_no_images_are_left_out(asked, values, reason):
    content = ask(asked, sample=lambda variables, key, n: values)
    assert content.samples is None and reason in content.notes[0]


def test_diagnostics_are_jitted_kept_by_kind_and_brought_to_types_of_numpy(asked):
    traced = []

    def diagnostics(variables, images):
        traced.append(isinstance(images, jnp.ndarray) and not isinstance(images, np.ndarray))
        return {
            "half": jnp.ones(3, jnp.bfloat16),
            "map": jnp.mean(images / 255.0, axis=-1),
            "wrong": jnp.zeros((1, 2, 3, 4, 5)),
        }

    content = ask(asked, diagnostics=diagnostics)
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
    for path in (moved / "train" / "good").glob("*.png"):
        path.write_bytes(b"no image")
    evaluate(run, data_root=str(moved))
    assert "No training images beside the samples: " in (run / "report.html").read_text()
    for path in (moved / "train" / "good").glob("*.png"):
        path.rename(path.with_name(f"other {path.name}"))
    evaluate(run, data_root=str(moved))
    page = (run / "report.html").read_text()
    assert "No training image is left in the data set" in page and 'id="samples"' in page
