"""Small configs of which one is known to be better, and a folder of good images."""

from __future__ import annotations

import pytest

PCA = """
from . import pca

def get_config(variants=""):
    config = pca.get_config()
    config.data.image_size = (32, 32)
    config.model.components = 4
    config.model.ssim_window = 5
    config.evaluate.smoothing = 1.0
    config.train.devices = 1
    return config
"""
BLIND = PCA.replace("config.model.components = 4", "config.model.components = 47").replace(
    "config.model.ssim_window = 5", "config.model.ssim_window = 5; config.model.patch = 4"
)
"""All but one direction of patches of 4 x 4 colours: it rebuilds every defect."""


@pytest.fixture(scope="session")
def configs(tmp_path_factory) -> dict[str, str]:
    """Files of a model that leaves defects out of its reconstruction, and of one that does not."""
    folder = tmp_path_factory.mktemp("configs")
    for name, text in {"seeing": PCA, "blind": BLIND}.items():
        (folder / f"{name}.py").write_text(text)
    return {name: str(folder / f"{name}.py") for name in ("seeing", "blind")}
