"""Against Pillow, on which all of jaxad's reading of images rests."""

import numpy as np
import onnxruntime
import pytest
from onnx import checker, helper
from PIL import Image

from jaxad.data.crop import box_of, cut
from jaxad.data.images import resize
from jaxad.export.graph import Graph, described
from jaxad.export.onnx_file import OPSET
from jaxad.export.preprocessing import preprocess

WHOLE = (0.0, 0.0, 1.0, 1.0)
PART = (0.1, 0.2, 0.77, 0.9)


def session(size, channels=3, region=WHOLE):
    graph = Graph()
    names = preprocess(graph, "image", size=size, channels=channels, region=region)
    graph.output("seen", names[0])
    graph.output("box", names[1])
    model = helper.make_model(
        graph.finish(
            "preprocessing",
            [described("image", np.uint8, ("batch", "height", "width", 3))],
            [
                described("seen", np.uint8, ("batch", *size, channels)),
                described("box", np.int64, (4,)),
            ],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
    )
    checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString())


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


SIZES = [(90, 90), (64, 80), (33, 100), (48, 32), (3, 5), (1, 1), (301, 420), (40, 24)]


@pytest.mark.parametrize("region", [WHOLE, PART], ids=["whole", "part"])
def test_images_of_any_size_become_pillows_to_the_bit(region):
    """Sizes at which every version of Pillow computes the columns first."""
    run = session((32, 24), region=region)
    for size in SIZES:
        image = noise(size)
        seen, box = run.run(["seen", "box"], {"image": image[None]})
        np.testing.assert_array_equal(seen[0], resize(cut(image, region), (32, 24)), str(size))
        assert tuple(box) == box_of(region, size)


def test_where_pillow_takes_the_rows_first_a_level_may_differ():
    """From Pillow 13 on, where the height shrinks and the width does not."""
    image = noise((257, 100))
    (seen,) = session((128, 128)).run(["seen"], {"image": image[None]})
    assert np.abs(seen[0].astype(int) - resize(image, (128, 128))).max() <= 1


def test_colour_becomes_gray_as_in_reading_and_gray_stays():
    run = session((20, 30), channels=1)
    image = noise((50, 70))
    gray = np.asarray(Image.fromarray(image).convert("L"))
    (seen,) = run.run(["seen"], {"image": image[None]})
    np.testing.assert_array_equal(seen[0], resize(gray[..., None], (20, 30)))
    (seen,) = run.run(["seen"], {"image": np.repeat(gray[None, ..., None], 3, axis=3)})
    np.testing.assert_array_equal(seen[0], resize(gray[..., None], (20, 30)))


def test_every_image_of_a_batch_is_resized_by_itself():
    images = np.stack([noise((45, 50), seed) for seed in range(3)])
    (seen,) = session((32, 24)).run(["seen"], {"image": images})
    for image, found in zip(images, seen, strict=True):
        np.testing.assert_array_equal(found, resize(image, (32, 24)))
