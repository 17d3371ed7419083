import jax
import numpy as np
import pytest

from jaxad import models
from jaxad.data.pipeline import evaluation_batches
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.postprocess import REDUCTIONS, make_detect
from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder
from jaxad.training.checkpoints import Checkpoints
from jaxad.training.inputs import prepare_inputs


@pytest.fixture(scope="module")
def images(tiny):
    return np.stack([tiny.stripes(i, size=(32, 32), defect=i % 2 == 1) for i in range(7)])


@pytest.fixture(scope="module")
def detector(trained):
    return Detector.load(trained[0])


def test_reloaded_model_gives_the_scores_of_the_fitted_one(trained, images, detector):
    config = RunFolder(trained[0]).read_config()
    options = config.model.to_dict()
    model = models.build(options.pop("name"), (32, 32, 3), **options)
    train = prepare_inputs(config).train
    fitted = model.fit(list(evaluation_batches(train, batch_size=len(train), pipeline="memory")))
    before = Detector(config, fitted, model, step=0)(images)
    # The same program on the same parameters: not a bit may differ.
    jax.tree.map(np.testing.assert_array_equal, before, detector(images))


def test_any_number_of_images_and_any_batch_size_agree(trained, images, detector):
    whole = detector(images)
    assert whole.reconstruction.shape == images.shape and whole.reconstruction.dtype == np.uint8
    for size in (1, 64):
        other = Detector.load(trained[0], overrides={"evaluate.batch_size": size})
        assert other.batch_size == size
        found = other(images)
        for name, values in whole.scores.items():
            # Another batch size is another program: float32 sums in another order, 4e-7 apart as
            # users compile, three roundings of float32. The score nll is a difference of large
            # terms.
            rtol = 2e-4 if name == "nll" else 2e-6
            np.testing.assert_allclose(found.scores[name], values, rtol=rtol, err_msg=name)
    alone = detector(images[3:4])
    assert alone.scores["l1:max"].shape == (1,)
    np.testing.assert_allclose(alone.scores["l1:max"], whole.scores["l1:max"][3:4], rtol=1e-5)


def test_reductions_are_those_of_the_smoothed_maps(images, detector):
    findings = detector(images)
    for name, values in findings.maps.items():
        pixels = np.sort(values.reshape(len(images), -1), axis=1)
        expected = {
            "max": pixels[:, -1],
            "mean": pixels.mean(axis=1),
            "top1": pixels[:, -10:].mean(axis=1),  # 1 % of 1024 pixels, rounded down
        }
        assert set(expected) == set(REDUCTIONS)
        for reduction, want in expected.items():
            # float32 means in another order of summation
            np.testing.assert_allclose(findings.scores[f"{name}:{reduction}"], want, rtol=1e-5)


def test_smoothing_is_scipys_gaussian(images, detector):
    from scipy import ndimage

    raw = jax.jit(make_detect(detector.model, smoothing=0.0))(detector.variables, images)
    smooth = detector(images).maps["l1"]
    want = ndimage.gaussian_filter(
        np.asarray(raw.maps["l1"], np.float64), (0, 2, 2), mode="reflect"
    )
    np.testing.assert_allclose(smooth, want, rtol=1e-4, atol=1e-7)  # float32 against double


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_a_run_of_any_number_of_devices_is_read_on_those_there_are(
    run, images, detector, devices, edited
):
    with edited(run / "config.json") as saved:
        saved["train"]["devices"] = devices
        saved["evaluate"]["batch_size"] = 3  # divides among none of them but one
    other = Detector.load(run)
    assert other.batch_size == {1: 3, 2: 4, 4: 4}[devices]
    found, want = other(images), detector(images)
    np.testing.assert_allclose(found.scores["l1:top1"], want.scores["l1:top1"], rtol=2e-6)
    assert found.reconstruction.shape == images.shape


def test_a_run_of_more_devices_than_there_are_is_read(run, images, edited):
    with edited(run / "config.json") as saved:
        saved["train"]["devices"] = 64
    assert np.isfinite(Detector.load(run)(images).scores["l1:max"]).all()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("primary_map", "ssmi", "did you mean 'ssim'"),
        ("primary_score", "ssim:maxx", "did you mean 'ssim:max'"),
        ("smoothing", -1.0, "must be 0 or more, not -1.0"),
        ("smoothing", float("nan"), "must be 0 or more, not nan"),
        ("batch_size", 0, "must be at least 1, not 0"),
        ("resolution", "full", "must be one of model, original, not 'full'"),
        ("image_false_positive_rate", 1.0, "must be from 0 to below 1, not 1.0"),
        ("pixel_false_positive_rate", -0.1, "must be from 0 to below 1, not -0.1"),
        ("aupro_limit", 0.0, "must be above 0 and at most 1, not 0.0"),
        ("report_images", -1, "must be 0 or more, not -1"),
        ("protocol", "vae_compar", "did you mean 'vae_compare'"),
    ],
)
def test_bad_options_are_refused_before_any_work(trained, key, value, message):
    with pytest.raises(UserError, match=f"evaluate.{key}.* {message}"):
        Detector.load(trained[0], overrides={f"evaluate.{key}": value})


def test_other_keys_and_checkpoints_are_refused(trained, tmp_path):
    with pytest.raises(UserError, match=r"train\.epochs cannot change after training"):
        Detector.load(trained[0], overrides={"train.epochs": 3})
    with pytest.raises(UserError, match="no checkpoint '7'"):
        Detector.load(trained[0], checkpoint=7)
    assert Detector.load(trained[0], checkpoint=0).step == 0
    with pytest.raises(UserError, match="not a run folder"):
        Detector.load(tmp_path)
    assert RunFolder(trained[0]).read_config().evaluate.batch_size == 4  # nothing was saved


def test_values_that_are_not_finite_are_an_error_not_a_pass(trained, images):
    good = Detector.load(trained[0])
    spoilt = jax.tree.map(lambda x: x * np.nan, dict(good.variables))
    with pytest.raises(UserError, match="not finite"):
        Detector(good.config, spoilt, good.model, step=0)(images)


def test_fewer_images_than_components_can_be_read_back(tiny, tmp_path):
    run = tiny.fit(
        tiny.write_data(tmp_path / "data", train=3), tmp_path / "run", model__components=30
    )
    checkpoints = Checkpoints(run / "checkpoints", read_only=True)
    assert checkpoints.latest_step() == 0
    checkpoints.close()
    assert np.isfinite(Detector.load(run)(np.zeros((1, 32, 32, 3), np.uint8)).scores["nll"]).all()
