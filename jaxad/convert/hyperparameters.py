"""What a file's shapes say about the network that they belong to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxad.convert.families import Family
from jaxad.convert.mapping import Mapped
from jaxad.run import schema
from jaxad.run.errors import UserError
from jaxad.run.text import brief

HEADS = {1280: 16}
"""Widths of well-known networks whose heads are not 64 wide (ViT-H: 80)."""

DECODER_HEADS = 16
"""Of every published masked autoencoder's decoder."""

HEAD_WIDTH = 64


def hyperparameters(
    mapped: Mapped,
    family: Family,
    config: Mapping[str, Any],
    *,
    source: str,
    heads: int = 0,
    decoder_heads: int = 0,
) -> dict[str, Any]:
    """Reads the network's sizes off the shapes.

    The number of heads is in no shape: it comes from the caller, else from the hub's config.json,
    else from the usual width of a head.

    Args:
      mapped: the converted weights.
      family: their family.
      config: the hub's config.json, or {}.
      source: the file's name, for messages.
      heads: of the encoder; 0: not given.
      decoder_heads: of the decoder; 0: not given.

    Raises:
      UserError: shapes that belong to no network of this family, or heads that do not fit.
    """
    leaves = mapped.leaves
    if family.name == "resnet18":
        kernel = leaves["params/encoder/stem_conv/kernel"]
        stages = {path.split("/")[2].partition("_")[0] for path in leaves if "/layer" in path}
        return {"channels": kernel.shape[2], "width": kernel.shape[3], "stages": len(stages)}
    if family.name.startswith("efficientnet-lite"):
        kernel = leaves["params/encoder/stem_conv/kernel"]
        blocks = {path.split("/")[2] for path in leaves if "/block_" in path}
        return {"channels": kernel.shape[2], "blocks": len(blocks)}
    kernel = leaves["params/encoder/patch_embedding/kernel"]
    rows, columns, channels, features = kernel.shape
    if rows != columns:
        raise UserError(f"{source}: patches of {rows} x {columns} pixels; only squares are read")
    grid = _grid(leaves["params/encoder/positions"], source)
    encoder = _stack(leaves, "encoder", mapped.blocks)
    encoder["heads"] = _heads(
        "--heads", heads, config.get("num_attention_heads"),
        HEADS.get(features, features // HEAD_WIDTH), features, source,
    )  # fmt: skip
    result = {
        "patch": rows,
        "channels": channels,
        "grid": list(grid),
        "image_size": [side * rows for side in grid],
        "layer_norm_epsilon": _epsilon(config, family, source),
        "encoder": encoder,
    }
    if "params/encoder/register_tokens" in leaves:
        result["registers"] = leaves["params/encoder/register_tokens"].shape[1]
    if "decoder" in mapped.blocks:
        decoder = _stack(leaves, "decoder", mapped.blocks)
        decoder["heads"] = _heads(
            "--decoder-heads", decoder_heads, config.get("decoder_num_attention_heads"),
            DECODER_HEADS, decoder["features"], source,
        )  # fmt: skip
        result["decoder"] = decoder
    return result


def _epsilon(config: Mapping[str, Any], family: Family, source: str) -> float | int:
    epsilon = config.get("layer_norm_eps", family.epsilon)
    if not schema.is_number(epsilon) or not 0 < epsilon < 1:
        raise UserError(
            f"{source}: layer_norm_eps of its config.json is {brief(repr(epsilon))}, no number "
            "between 0 and 1; get the file anew from the model's page"
        )
    return epsilon


def _stack(
    leaves: Mapping[str, np.ndarray], module: str, blocks: Mapping[str, int]
) -> dict[str, int]:
    """Sizes of a stack of transformer blocks."""
    features, hidden = leaves[f"params/{module}/block_0/mlp/fc1/kernel"].shape
    return {"features": features, "depth": blocks[module], "mlp_features": hidden}


def _grid(positions: np.ndarray, source: str) -> tuple[int, int]:
    """Rows and columns of patches, from the number of positions (a class token's comes first)."""
    patches = positions.shape[1] - 1
    side = math.isqrt(max(patches, 0))
    if side < 1 or side * side != patches:
        raise UserError(
            f"{source}: {positions.shape[1]} position embeddings are not a class token's and those "
            "of a square grid of patches"
        )
    return side, side


def _heads(flag: str, given: int, configured: Any, usual: int, features: int, source: str) -> int:
    heads = given or (configured if type(configured) is int else 0) or usual
    if heads < 1 or features % heads:
        raise UserError(
            f"{source}: {features} features cannot be shared by {heads} heads; give the network's "
            f"number of heads with {flag}=N"
        )
    return heads
