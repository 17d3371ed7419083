"""On maps of real bottles brackets hold the exact figures and are narrow, whatever the scale."""

import numpy as np
import pytest
from PIL import Image

from jaxad import metrics
from jaxad.data import decode, read_mask, read_table, resize
from jaxad.evaluation.detector import Detector
from jaxad.run.config import load_config
from jaxad.training.train import train


@pytest.fixture(scope="module")
def bottles(real_data, tmp_path_factory):
    """Maps of pca at 256 x 256, masks and kinds, in the order of the data set."""
    root = real_data / "mvtec_ad"
    run = tmp_path_factory.mktemp("pca")
    keys = {"data.root": str(root), "data.category": "bottle", "data.pipeline": "memory"}
    train(load_config("pca", keys | {"train.devices": 1, "model.components": 10}), run)
    samples = read_table(root, category="bottle").test()
    images = [resize(decode(s.path, channels=3), (128, 128)) for s in samples]
    found = Detector.load(run)(np.stack(images)).maps["l1*ssim"]
    size = (256, 256)
    maps = [np.asarray(Image.fromarray(m).resize(size, Image.Resampling.BILINEAR)) for m in found]
    zeros = np.zeros(size, bool)
    masks = [read_mask(s.mask, image_size=size) if s.mask else zeros for s in samples]
    return np.stack(maps), np.stack(masks), [s.defect for s in samples]


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [lambda m: m, lambda m: 1e-30 * m, lambda m: 1e3 + m, lambda m: np.log(m + 1e-9)],
    ids=["raw", "tiny", "offset", "log"],
)
def test_brackets_are_narrow(bottles, change):
    maps, masks, kinds = bottles
    maps = change(maps).astype(np.float32)
    exact = metrics.evaluate_maps(maps, masks, defects=kinds)
    parts = [metrics.Accumulator(kept_pixels=500_000) for _ in range(2)]
    for i in range(0, len(maps), 5):
        some = slice(i, i + 5)
        parts[i % 2].update(maps[some], masks[some], defects=kinds[some])
    streamed = parts[0].merge(parts[1]).compute()
    assert streamed["method"] == "streaming"
    for name, (low, high) in streamed["brackets"].items():
        value = exact
        for key in name.split("."):
            value = value[key]
        # A mean over images is a point, summed here in another order.
        assert low - 1e-12 <= value <= high + 1e-12, name
        assert high - low < 1e-4, name
