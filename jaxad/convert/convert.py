"""``jaxad convert``: weights of a PyTorch project into a folder that runs can start from.

The folder holds ``weights/``, an Orbax checkpoint of ``{collection: {submodule: tree}}`` in Flax's
layout, and ``provenance.json``: where the weights come from, under which licence, what network
they belong to, which keys were left out.
"""

from __future__ import annotations

import datetime
import os
import pathlib
from typing import Any

from flax.traverse_util import unflatten_dict

import jaxad
from jaxad.convert.families import FAMILIES, STAGES, Family, family as family_of
from jaxad.convert.hyperparameters import hyperparameters
from jaxad.convert.mapping import Mapped, map_weights
from jaxad.convert.positions import resize_positions
from jaxad.convert.reading import Weights, open_weights
from jaxad.data.digests import sha256_of
from jaxad.run.errors import UserError, did_you_mean
from jaxad.run.files import plain, remove_unfinished, write_text, writing
from jaxad.training.checkpoints import digest_of
from jaxad.training.weights import DESCRIPTION, PROVENANCE, save_tree


def convert(
    family: str,
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    image_size: int = 0,
    heads: int = 0,
    decoder_heads: int = 0,
    stages: int = 2,
) -> dict[str, Any]:
    """Converts a file of PyTorch weights; nothing in it is ever run.

    Args:
      family: one of :data:`jaxad.convert.families.FAMILIES`.
      source: the file, or the folder of a model of the Hugging Face hub.
      output: a new or empty folder; it appears whole or not at all.
      image_size: side in pixels to whose grid position embeddings are resized (bicubic, as
        PyTorch does it); 0 keeps them.
      heads: attention heads of the encoder, where neither the hub's config.json nor the usual
        width of a head gives them; 0: not given.
      decoder_heads: likewise, of a masked autoencoder's decoder.
      stages: of a ResNet18, how many of layer1 to layer4 are kept.

    Returns:
      The content of ``provenance.json``.

    Raises:
      UserError: the file does not serve (it says why), or the output is taken.
    """
    if family not in FAMILIES:
        raise UserError(f"--from={family} is unknown" + did_you_mean(family, FAMILIES))
    if not 1 <= stages <= STAGES:
        raise UserError(f"--stages is {stages}; a ResNet18 has 1 to {STAGES}")
    folder = pathlib.Path(output)
    _check_output(folder)
    table = family_of(family, stages=stages)
    weights = open_weights(pathlib.Path(source))
    mapped = map_weights(weights.state, table, source=str(weights.path))
    sizes = hyperparameters(
        mapped, table, weights.config,
        source=str(weights.path), heads=heads, decoder_heads=decoder_heads,
    )  # fmt: skip
    resized_from = None
    if image_size:
        resized_from = sizes.get("image_size")
        mapped, sizes = _resize(mapped, sizes, image_size)
    record = provenance(weights, table, mapped, sizes, resized_from=resized_from)
    tree = unflatten_dict(mapped.leaves, sep="/")
    record |= {"weights_sha256": digest_of(tree)}
    _write(folder, tree, record)
    return record


def provenance(
    weights: Weights,
    family: Family,
    mapped: Mapped,
    sizes: dict[str, Any],
    *,
    resized_from: list[int] | None = None,
) -> dict[str, Any]:
    """What provenance.json says of converted weights.

    Args:
      weights: the file that they were in.
      family: their family.
      mapped: the converted weights.
      sizes: of their network.
      resized_from: the image size that its position embeddings were made for, if it is another.
    """
    return {
        "family": family.name,
        "source": weights.path.name,
        "sha256": sha256_of(str(weights.path)),
        "bytes": weights.path.stat().st_size,
        "origin": family.origin,
        "licence": family.licence,
        "converted": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "jaxad": jaxad.__version__,
        "network": sizes,
        "positions_resized_from": resized_from,
        "stored_as": mapped.stored_as,
        "submodules": sorted({path.split("/")[1] for path in mapped.leaves}),
        "absent": mapped.absent,
        "dropped": mapped.dropped,
        "prefix": weights.prefix,
    }


def _check_output(folder: pathlib.Path) -> None:
    if folder.is_dir():
        if any(folder.iterdir()):
            raise UserError(f"--output {folder} is not empty; give a new folder")
    elif folder.exists():
        raise UserError(f"--output {folder} is a file; give a new folder")


def _resize(
    mapped: Mapped, sizes: dict[str, Any], image_size: int
) -> tuple[Mapped, dict[str, Any]]:
    """Position embeddings for images of another size."""
    if "patch" not in sizes:
        raise UserError("--image-size is for position embeddings; this network has none")
    patch = sizes["patch"]
    if image_size < 1 or image_size % patch:
        raise UserError(f"--image-size={image_size} is no multiple of the patches' side, {patch}")
    grid = (image_size // patch,) * 2
    leaves = dict(mapped.leaves)
    for module in mapped.blocks:
        path = f"params/{module}/positions"
        leaves[path] = resize_positions(leaves[path], tuple(sizes["grid"]), grid)
    sizes = {**sizes, "grid": list(grid), "image_size": [image_size] * 2}
    return mapped._replace(leaves=leaves), sizes


def _write(folder: pathlib.Path, tree: dict[str, Any], record: dict[str, Any]) -> None:
    """All into a hidden folder beside the output, which then takes its name."""
    with writing(folder, what=f"--output {folder}") as temporary:
        # Of a conversion that was killed.
        remove_unfinished(temporary.parent, folder.absolute().name, older_than_seconds=0)
        temporary.mkdir()
        save_tree(tree, temporary)
        write_text(temporary / PROVENANCE, DESCRIPTION.write(plain(record)))
