"""Configs: found by name or file, changed by variants and overrides, locked, saved as JSON.

``--config=vqvae:small,ema --config.train.epochs=20`` reads, in this order, the file's defaults
(``jaxad config NAME`` lists every key), its variants (in any order), then the overrides.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import pathlib
import sys
import traceback
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxad.run import schema
from jaxad.run.errors import UserError, did_you_mean, meant, nearest
from jaxad.run.files import plain
from jaxad.run.lists import listed_paths
from jaxad.run.options import converted
from jaxad.run.settings import ModelChoice, Settings

Variant = Callable[[ConfigDict], None]

OPEN_GROUPS = ("model.", "train.learning_rate_multipliers.")
"""Groups to which a config file may add keys; what reads them refuses unknown ones."""


def shipped_folder() -> pathlib.Path:
    """The folder of the configs that come with jaxad (inside the wheel, or beside the package)."""
    package = pathlib.Path(__file__).resolve().parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def shipped_names() -> list[str]:
    """Names that ``--config=NAME`` knows."""
    return sorted(f.stem for f in shipped_folder().glob("*.py") if f.stem != "common")


def shipped_summary(name: str) -> str:
    """The first line of what a shipped config says of itself."""
    text = (shipped_folder() / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def load_config(spec: str, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """Reads a config, applies its variants and the overrides, and locks it.

    Args:
      spec: ``NAME``, ``NAME:variant,variant``, ``FILE.py`` or ``FILE.py:variant,variant``.
      overrides: dotted key -> value; a string is parsed to the type of the key's default.

    Returns:
      The locked config.

    Raises:
      UserError: the file, a variant or a key is unknown, or a value has the wrong type.
    """
    file_part, _, variants = spec.partition(":")
    if file_part == "common":
        raise UserError("common holds the keys of every config but no model; give a model's name")
    module = _import_config(file_part)
    if not hasattr(module, "get_config"):
        raise UserError(f"the config {file_part} defines no function get_config(variants)")
    with _naming_failures(file_part):
        config = module.get_config(variants)
    _check_keys(file_part, config)
    for key, value in (overrides or {}).items():
        set_key(config, key, value)
    config.lock()
    return config


def _check_keys(file: str, config: ConfigDict) -> None:
    """Refuses a config file that sets a key which nothing reads, or lacks one that is read."""
    known, present = list(flatten(default_config())), list(flatten(config))
    for key in present:
        if key not in known and not key.startswith(OPEN_GROUPS):
            raise UserError(f"the config {file} sets an unknown key {key!r}" + _nearest(key, known))
    for key in known:
        if key not in present:
            raise UserError(
                f"the config {file} lacks the key {key!r}; start it from common.get_config()"
            )


def default_config(model: str = "", options: Mapping[str, Any] | None = None) -> ConfigDict:
    """A config of all shared keys with their defaults (:mod:`jaxad.run.settings`).

    Args:
      model: name of the architecture.
      options: its options with their defaults.
    """
    choice = ModelChoice(model, options or {})
    return ConfigDict(Settings(model=choice).to_dict())


def settings_of(config: ConfigDict | Settings) -> Settings:
    """The frozen settings of a config, every shared key checked.

    Raises:
      UserError: names the key and what it takes.
    """
    if isinstance(config, Settings):
        return config
    return Settings.of(config.copy_and_resolve_references().to_dict())


def load_settings(spec: str, overrides: Mapping[str, Any] | None = None) -> Settings:
    """:func:`load_config`, then :func:`settings_of`."""
    return settings_of(load_config(spec, overrides))


def with_keys(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """The settings with other values of some dotted keys, as overrides set them.

    Raises:
      UserError: an unknown key, or a value that it does not take.
    """
    config = ConfigDict(settings.to_dict())
    for key, value in values.items():
        set_key(config, key, value)
    return settings_of(config)


def with_absolute_root(settings: Settings) -> Settings:
    """The same settings, which mean the same from any working directory.

    Raises:
      UserError: a list of ``data.exclude`` cannot be read.
    """
    data = settings.data
    root = os.path.abspath(os.path.expanduser(data.root)) if data.root else ""
    exclude = "\n".join(listed_paths(data.exclude, key="data.exclude"))
    return settings.changed("data", root=root, exclude=exclude)


def _import_config(name_or_file: str) -> types.ModuleType:
    """Imports a config file as a member of a package, so that it may say ``from . import common``.

    The package's path is the file's own folder, then the shipped one: a config file that lives
    anywhere can build on ``common`` or on a shipped model's config.
    """
    if name_or_file.endswith(".py"):
        path = pathlib.Path(name_or_file)
        if not path.is_file():
            # `configs/vqvae.py` also works away from a clone: the file's name says which it is.
            path = shipped_folder() / path.name
            if path.parent.name != pathlib.Path(name_or_file).parent.name or not path.is_file():
                raise UserError(
                    f"the config file {name_or_file} does not exist"
                    + did_you_mean(pathlib.Path(name_or_file).stem, shipped_names())
                )
    else:
        path = shipped_folder() / f"{name_or_file}.py"
        if not path.is_file():
            raise UserError(
                f"there is no config named {name_or_file!r}"
                + did_you_mean(name_or_file, shipped_names())
            )
    package_name = "jaxad_config_files"
    package = types.ModuleType(package_name)
    package.__path__ = list(dict.fromkeys([str(path.resolve().parent), str(shipped_folder())]))
    for loaded in [m for m in sys.modules if m.partition(".")[0] == package_name]:
        del sys.modules[loaded]
    sys.modules[package_name] = package
    spec = importlib.util.spec_from_file_location(f"{package_name}.{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"the config file {path} cannot be read as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with _naming_failures(path):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _naming_failures(file: object) -> Iterator[None]:
    """Whatever a config file's own code raises becomes a sentence with the line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1].lineno
        raise UserError(
            f"the config {file} fails at line {line}: {type(error).__name__}: {error}"
        ) from error


SOURCES = ("paper", "reference")
"""Variants that say whose settings to start from; at most one is given."""

SIZES = ("small", "medium")
"""Variants that reduce a model to what a CPU trains; at most one is given."""


def apply_variants(
    config: ConfigDict,
    variants: str,
    known: Mapping[str, Variant],
    *,
    exclusive: Iterable[Collection[str]] = (),
) -> ConfigDict:
    """Applies comma-separated variants to a config that is not yet locked.

    The order in which they are written does not matter: a source (:data:`SOURCES`) comes first,
    a size (:data:`SIZES`) reduces it, and the others follow as ``known`` lists them, so that each
    holds for all that it names.

    Args:
      config: changed in place.
      variants: such as ``"small,ema"``; empty for none.
      known: name -> function that changes the config.
      exclusive: groups of names of which at most one can be given, since they set the same thing.

    Returns:
      The same config.

    Raises:
      UserError: a variant is unknown, or two exclude each other.
    """
    given = list(dict.fromkeys(filter(None, (v.strip() for v in variants.split(",")))))
    model = config.model.name
    for variant in given:
        if variant not in known:
            raise UserError(
                f"the config of {model!r} has no variant {variant!r}" + did_you_mean(variant, known)
            )
    for group in (SOURCES, SIZES, *exclusive):
        chosen = [variant for variant in given if variant in group]
        if len(chosen) > 1:
            raise UserError(
                f"the config of {model!r} takes one of the variants {' and '.join(chosen)}, not "
                "both: they set the same thing"
            )
    order = [*SOURCES, *SIZES, *known]
    for variant in sorted(given, key=order.index):
        known[variant](config)
    config.variants = ",".join(given)
    return config


def set_key(config: ConfigDict, key: str, value: Any) -> None:
    """Sets a dotted key, parsing text to the type that the key's default has.

    Raises:
      UserError: the key is unknown, names a group, or the value does not fit its type.
    """
    node, parts = config, key.split(".")
    group = key.rpartition(".")[0] + "."
    if group == "train.learning_rate_multipliers.":
        # One key per label of the model's parameters, which the optimiser checks.
        with config.unlocked():
            config.train.learning_rate_multipliers[parts[-1]] = 1.0
    for depth, part in enumerate(parts):
        if not isinstance(node, ConfigDict) or part not in node:
            known = sorted(flatten(config))
            where = ".".join(parts[: depth + 1])
            raise UserError(f"unknown config key {where!r}" + _nearest(key, known))
        if depth < len(parts) - 1:
            node = node[part]
    if isinstance(node[parts[-1]], ConfigDict):
        inner = ", ".join(f"{key}.{k}" for k in node[parts[-1]]) or f"{key}.LABEL"
        raise UserError(f"the config key {key!r} is a group; set one of its keys: {inner}")
    default = node[parts[-1]]
    node[parts[-1]] = converted(key, value, default, node.get_type(parts[-1]))


def _nearest(key: str, known: list[str]) -> str:
    """Which keys may be meant: those of the same last part, or nearly so in the same group."""
    leaf_of = lambda known_key: known_key.rpartition(".")[2]
    group, _, leaf = key.rpartition(".")
    there = [k for k in known if k.rpartition(".")[0] == group] if group else known
    for wanted in ([leaf], nearest(leaf, sorted({leaf_of(k) for k in there}))):
        keys = [k for k in (known if wanted == [leaf] else there) if leaf_of(k) in wanted]
        if keys:
            return meant(keys)
    near = [] if there else nearest(key, known)
    return meant(near) if near else "; `jaxad config NAME` lists every key"


def flatten(config: ConfigDict | Settings) -> dict[str, Any]:
    """Dotted key -> value, in the config's order; a group without keys has none."""
    if isinstance(config, ConfigDict):
        config = config.copy_and_resolve_references()

    def leaves(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, value in values.items():
            if isinstance(value, Mapping):
                yield from leaves(f"{prefix}{name}.", value)
            else:
                yield prefix + name, value

    return dict(leaves("", config.to_dict()))


def to_json(config: ConfigDict | Settings) -> str:
    """The config as JSON text with its schema version and digest."""
    return schema.CONFIG.write(plain(config.to_dict()))


def from_json(text: str, *, source: str = "config.json") -> Settings:
    """Reads what :func:`to_json` wrote.

    Keys that came after the run was written have the default of today: a new key's default is
    what was done before there was one.

    Raises:
      UserError: not JSON, written by a schema that this version does not read, or holding a key
        or a value that no config may have.
    """
    values = schema.CONFIG.read(text, source)
    try:
        return Settings.of(_tuples(values), source=source)
    except UserError as error:
        raise UserError(f"{source}: {str(error).removeprefix(f'{source}: ')}") from None


def _tuples(value: Any) -> Any:
    """JSON has no tuples: sequences of a config are tuples again after reading."""
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
