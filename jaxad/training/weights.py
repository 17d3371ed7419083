"""Converted weights (``jaxad convert``) on disk, and their way into a model's variables.

A folder holds ``weights/``, an Orbax checkpoint of ``{collection: {submodule: tree}}``, and
``provenance.json``. The submodule ``encoder`` is the trunk that every pretrained architecture
names so; that of a masked autoencoder may be accompanied by its ``decoder``.
"""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxad.models.base import Variables
from jaxad.ops.positions import sincos_positions
from jaxad.run.errors import UserError
from jaxad.run.schema import COUNT, NUMBER, PLAIN, TEXT, Kind, Schema, list_of, object_of, optional
from jaxad.training.checkpoints import abstract, digest_of, explaining, one_device, silence_orbax

PROVENANCE = "provenance.json"
WEIGHTS = "weights"
MASK_TOKEN = ("params", "decoder", "mask_token")
"""Tells a masked autoencoder's decoder from any other submodule of that name."""

SHOWN = 40
"""Leaves that an error names before it only counts."""

Path = tuple[str, ...]

_NETWORK = Kind(
    "the sizes of a network",
    lambda value: (
        object_of(PLAIN).fits(value)
        and all(isinstance(value.get(part, {}), Mapping) for part in ("encoder", "decoder"))
        and optional(NUMBER).fits(value.get("layer_norm_epsilon"))
    ),
)
DESCRIPTION = Schema(
    keys={
        "family": TEXT,
        "source": TEXT,
        "sha256": TEXT,
        "licence": TEXT,
        "network": _NETWORK,
        "submodules": list_of(TEXT),
        "absent": object_of(TEXT),
    },
    more={"schema_version": COUNT, "weights_sha256": optional(TEXT)},
    others=PLAIN,
    advice="convert the file again",
)
"""Of provenance.json; ``schema_version`` is what files of before its digest were told apart by."""


def save_tree(tree: Mapping[str, Any], folder: pathlib.Path) -> None:
    """Writes ``folder/weights``.

    Args:
      tree: ``{collection: {submodule: ...}}`` of numpy arrays.
      folder: exists.

    Raises:
      UserError: the disk is full or the folder cannot be written.
    """
    silence_orbax()
    failing = explaining(f"the weights could not be written to {folder}: ")
    with failing, ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((folder / WEIGHTS).resolve(), dict(tree))
        checkpointer.wait_until_finished()


def read_provenance(folder: str | os.PathLike) -> dict[str, Any]:
    """What a folder of converted weights says about itself.

    Raises:
      UserError: it is no such folder, or the file is damaged or of another version of jaxad.
    """
    path = pathlib.Path(folder) / PROVENANCE
    try:
        return DESCRIPTION.read(path.read_text(encoding="utf-8"), f"train.weights: {path}")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"train.weights: {folder} is no folder of `jaxad convert`: it has no {PROVENANCE}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"train.weights: {path} cannot be read: {error}") from None


FACTS = {
    "patch": ("patch",),
    "width": ("width",),
    "features": ("encoder", "features"),
    "depth": ("encoder", "depth"),
    "heads": ("encoder", "heads"),
    "decoder_features": ("decoder", "features"),
    "decoder_depth": ("decoder", "depth"),
    "decoder_heads": ("decoder", "heads"),
}
"""Option of a model -> where the ``network`` of a provenance has it. No shape tells the heads."""


def check_network(record: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuses weights of a network of other sizes than the model's.

    Args:
      record: as :func:`read_provenance` gives it.
      options: ``config.model``.

    Raises:
      UserError: names every option that differs, and its value in the weights.
    """
    network = record.get("network", {})
    differing = []
    for option, (place, *inner) in FACTS.items():
        # A decoder of another kind has sizes of its own, and its weights are not loaded.
        if place == "decoder" and "decoder_heads" not in options:
            continue
        value = network.get(place)
        for name in inner:
            value = (value or {}).get(name)
        if value is not None and options.get(option, value) != value:
            differing.append(f"model.{option}={value} (now {options[option]})")
    if differing:
        raise UserError(
            f"train.weights belongs to another network: set {', '.join(differing)}, or take other "
            "weights"
        )


def epsilon_note(record: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """What to say where the weights' layer-norm epsilon is not the model's; mostly empty."""
    there = record.get("network", {}).get("layer_norm_epsilon")
    here = options.get("layer_norm_epsilon")
    if None in (there, here) or there == here:
        return ""
    return (
        f"the weights were made for a layer-norm epsilon of {there:g}, and "
        f"model.layer_norm_epsilon is {here:g}: the last digits differ; "
        f"--config.model.layer_norm_epsilon={there:g} gives them all"
    )


def check_complete(variables: Variables, record: Mapping[str, Any]) -> None:
    """Refuses weights that leave parts of the model as they are drawn.

    Args:
      variables: of the model, or their shapes.
      record: as :func:`read_provenance` gives it.

    Raises:
      UserError: names the parts.
    """
    paths = flatten_dict(dict(variables))
    there = {*record["submodules"]} - (set() if MASK_TOKEN in paths else {"decoder"})
    lacking = sorted({path[1] for path in paths} - there)
    if lacking:
        meanings = "".join(f" ({record['absent'][m]})" for m in lacking if m in record["absent"])
        raise UserError(
            f"nothing is trained (train.optimizer=none, or a learning rate of 0), but "
            f"train.weights lacks {', '.join(lacking)} of the model{meanings}: it would stay "
            "random; take weights that have it, or train"
        )


def load_weights(variables: Variables, folder: str | os.PathLike) -> Variables:
    """Replaces the initial values of a model by converted weights.

    The subtree ``encoder`` of every collection is replaced, and ``decoder`` where both the model
    and the folder have a masked autoencoder's. Fixed position embeddings, which are no parameters
    of the model, are compared with those of the file.

    Args:
      variables: as ``model.init`` gives them, or, where the folder holds all, their shapes.
      folder: the output of ``jaxad convert``.

    Returns:
      Variables of the same structure, shapes and dtypes.

    Raises:
      UserError: a leaf is missing, superfluous or of another shape; all of them are listed.
    """
    read_provenance(folder)
    own = flatten_dict(dict(variables))
    found = flatten_dict(read_tree(pathlib.Path(folder)))
    if MASK_TOKEN not in own:
        found = {path: leaf for path, leaf in found.items() if path[1] != "decoder"}
    modules = {path[1] for path in found}
    if not any(path[1] == "encoder" for path in own):
        raise UserError(
            f"train.weights: the model has no encoder that could start from {folder}; "
            "leave train.weights empty"
        )
    places = {path: leaf for path, leaf in own.items() if path[1] in modules}
    _check_channels(places, found, folder)
    found = _without_fixed_positions(places, found, folder)
    problems = differences(places, found)
    if problems:
        shown = "; ".join(problems[:SHOWN])
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError(f"train.weights: {folder} does not fit the model: {shown}{more}")
    loaded = {path: jnp.asarray(leaf, own[path].dtype) for path, leaf in found.items()}
    return unflatten_dict({**own, **loaded})


def read_tree(folder: pathlib.Path) -> dict[str, Any]:
    """Reads ``folder/weights``: ``{collection: {submodule: ...}}``.

    Raises:
      UserError: the folder is damaged, or its weights are not those that were converted.
    """
    written = read_provenance(folder).get("weights_sha256")  # of before there were digests: None
    path = (folder / WEIGHTS).resolve()
    silence_orbax()
    failing = explaining(f"train.weights: {folder} is damaged (", "); convert the file again")
    with failing, ocp.StandardCheckpointer() as checkpointer:
        shapes = checkpointer.metadata(path).item_metadata.tree
        tree = checkpointer.restore(path, abstract(dict(shapes), one_device()))
        if written not in (None, digest_of(tree)):
            raise ValueError("its weights are not what was written")
        return tree


def _check_channels(
    places: Mapping[Path, Any], found: Mapping[Path, Any], folder: str | os.PathLike
) -> None:
    """Colour weights and gray images differ in one leaf; that has a sentence of its own."""
    for name in ("patch_embedding", "stem_conv"):
        path = ("params", "encoder", name, "kernel")
        if path in places and path in found:
            here, there = places[path].shape[2], found[path].shape[2]
            if here != there:
                raise UserError(
                    f"train.weights: the weights in {folder} take images of {there} channels, the "
                    f"model's have {here}: set data.channels={there}"
                )


def _without_fixed_positions(
    places: Mapping[Path, Any], found: Mapping[Path, Any], folder: str | os.PathLike
) -> dict[Path, Any]:
    """Leaves out positions that the model computes, once they are known to be the same table."""
    result = dict(found)
    for path, leaf in found.items():
        if path[-1] != "positions" or path in places:
            continue
        side = math.isqrt(leaf.shape[1] - 1)
        table = np.asarray(sincos_positions((side, side), leaf.shape[2]))
        # Files hold them in float32, computed in float64.
        if not np.allclose(np.asarray(leaf)[0, 1:], table, atol=1e-5) or np.any(leaf[0, 0]):
            raise UserError(
                f"train.weights: the model computes its position embeddings (sine and cosine), but "
                f"those in {folder} are others: resized by --image-size, or learned"
            )
        del result[path]
    return result


def differences(places: Mapping[Path, Any], found: Mapping[Path, Any]) -> list[str]:
    """One clause for every leaf of a model that what was found does not fit, in order."""
    problems = []
    for path in sorted({*places, *found}):
        name = "/".join(path)
        if path not in found:
            problems.append(f"{name} is missing in the folder")
        elif path not in places:
            problems.append(f"{name} is not in the model")
        elif tuple(places[path].shape) != tuple(found[path].shape):
            here, there = tuple(places[path].shape), tuple(found[path].shape)
            problems.append(f"{name} is {there}, the model's is {here}{_hint(path, here, places)}")
    return problems


def _hint(path: Path, shape: tuple[int, ...], places: Mapping[Path, Any]) -> str:
    """What to do about positions of another grid."""
    kernel = places.get(("params", "encoder", "patch_embedding", "kernel"))
    if path[-1] != "positions" or kernel is None:
        return ""
    side = math.isqrt(shape[1] - 1)
    if side * side != shape[1] - 1:
        return ""
    return f" (convert the file again with --image-size={side * kernel.shape[0]})"
