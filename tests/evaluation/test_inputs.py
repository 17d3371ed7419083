"""What an evaluation reads, without a model: leaks of photographs, damaged masks that tell kinds."""

import numpy as np
import pytest
from PIL import Image

from jaxad.evaluation.evaluate import find_leaks
from jaxad.evaluation.inputs import read_inputs
from jaxad.run.config import load_settings
from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder
from jaxad.training.inputs import prepare_inputs


def picture(seed, size=(40, 56)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def prepared(root, place, **keys):
    """The run folder of a run that was prepared on a data set, its config, and its inputs."""
    options = {f"data.{key}": value for key, value in keys.items()}
    config = load_settings("pca", {"data.root": str(root), "data.image_size": (16, 16), **options})
    run = RunFolder(place)
    run.create()
    inputs = prepare_inputs(config)
    run.write_json(run.data, inputs.record)
    return run, config, inputs


@pytest.mark.parametrize("tiles", [(16, 4), (24, 0), (0, 0)])
@pytest.mark.parametrize("holdout", [0.0, 0.5])
def test_leaks_are_named_in_another_format_too(tmp_path, tiles, holdout):
    """The pixels say so: no file is equal to another, and one is even turned by EXIF."""
    for i in range(4):
        save(tmp_path / f"data/train/good/{i}.png", picture(i, (40 + i, 56)))
        save(tmp_path / f"data/test/good/{i}.png", picture(50 + i))
    turned = Image.Exif()
    turned[274] = 6
    save(tmp_path / "data/test/good/again_1.tif", np.rot90(picture(1, (41, 56))), exif=turned)
    save(tmp_path / "data/test/hole/again_2.bmp", picture(2, (42, 56)))
    save(tmp_path / "data/test/hole/50.bmp", picture(50))
    save(tmp_path / "data/train/good/again_3.tif", picture(3, (43, 56)), compression="tiff_lzw")
    keys = {"tiles": tiles, "calibration": "held_out", "holdout": holdout}
    run, config, inputs = prepared(tmp_path / "data", tmp_path / "run", **keys)
    pixels = inputs.record["pixels"]
    assert len(pixels) == 5 and len(set(pixels.values())) == 4
    twice = [note for note in inputs.record["notes"] if "more than once in training" in note]
    assert ["equal to the last pixel as the model sees them: 1" in note for note in twice] == [True]
    test = read_inputs(run, config, None)
    assert len(list(test.images)) == 7  # a detector looks at all of them
    count, notes = find_leaks(test)
    assert count == 2
    assert notes[0].startswith("pictures good and defective, equal to the last pixel as the model")
    assert notes[1].startswith("2 of 7 test images are images that the run was trained on")


def test_a_streamed_photograph_has_the_digest_of_a_decoded_one(tmp_path):
    for i in range(3):
        save(tmp_path / f"data/{i}.png", picture(i))
    keys = {"tiles": (16, 4), "calibration": "held_out", "holdout": 0.0}
    _, _, decoded = prepared(tmp_path / "data", tmp_path / "one", **keys)
    _, _, streamed = prepared(tmp_path / "data", tmp_path / "other", **keys, stream=True)
    images, names = streamed.train, streamed.record["training"]
    assert not streamed.record["pixels"]
    images[np.arange(len(images) - 1)]
    assert images.known_digests().keys() == {0, 1}  # not all tiles of the third
    images[:]
    found = {names[i]: digest for i, digest in images.known_digests().items()}
    assert found == decoded.record["pixels"]


def test_damaged_masks_that_tell_kinds_may_be_left_out(tmp_path):
    root = tmp_path / "data"
    for i in range(20):
        save(root / f"images/{i}.png", picture(i))
        save(root / f"masks/{i}.png", np.uint8(np.eye(40, 56)) * 255 * (i < 4))
    run, config, _ = prepared(root, tmp_path / "run")
    before = {test.path for test in read_inputs(run, config, None).samples}
    for i in (1, 7, 12):
        (root / f"masks/{i}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"masks cannot be read: .*1\.png.*--skip-unreadable"):
        read_inputs(run, config, None)
    skipping = load_settings(
        "pca",
        {"data.root": str(root), "data.image_size": (16, 16), "evaluate.skip_unreadable": True},
    )
    test = read_inputs(run, skipping, None)
    left = {sample.path for sample in test.samples}
    # Nothing that was trained on is tested, whatever is drawn without the damaged ones.
    assert left < before and str(root / "images/1.png") not in left
    assert sum(sample.label for sample in test.samples) == 3
    assert str(root / "images/1.png") in {sample.path for sample in test.unreadable}
    assert find_leaks(test) == (0, [])
