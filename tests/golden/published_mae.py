"""The network of the published masked autoencoder, from a checkout of facebookresearch/mae."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import numpy as np
import timm.models.vision_transformer as timm_vit


def import_mae(checkout: pathlib.Path) -> Any:
    """The checkout's module ``models_mae``, which wants old versions of timm and NumPy."""
    sys.path.insert(0, str(checkout))
    np.float = float  # of NumPy versions before 1.24

    class Block(timm_vit.Block):
        """Today's block behind the signature of timm 0.3.2."""

        def __init__(self, *arguments: Any, qk_scale: None = None, **options: Any):
            assert qk_scale is None
            super().__init__(*arguments, **options)

    original, timm_vit.Block = timm_vit.Block, Block
    import models_mae

    timm_vit.Block = original
    return models_mae
