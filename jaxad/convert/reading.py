"""Finds and opens the weights of a user: a .safetensors or PyTorch file, or a folder of the hub."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401 - gives numpy the dtype bfloat16
import numpy as np

from jaxad.convert.mapping import Source, listing
from jaxad.convert.torch_file import LazyTensor, read_torch_file
from jaxad.run import schema
from jaxad.run.errors import UserError
from jaxad.run.text import brief

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""What a folder of the Hugging Face hub holds its weights in, the first found is taken."""

CONTAINERS = ("model", "state_dict", "model_state_dict")
"""Under which keys a training checkpoint keeps its weights."""

WRAPPERS = ("module.", "model.", "_orig_mod.")
"""What DistributedDataParallel, Lightning and torch.compile put before every key."""


class Weights(NamedTuple):
    """An opened file.

    Attributes:
      path: the file that holds the weights.
      state: key -> tensor, without the prefix.
      config: the hub's config.json beside it, or {}.
      prefix: of every key in the file, left by a network that wrapped the one of the weights.
    """

    path: pathlib.Path
    state: Mapping[str, Source]
    config: dict[str, Any]
    prefix: str


def open_weights(path: pathlib.Path) -> Weights:
    """Opens a file of weights, or the folder of a model of the Hugging Face hub.

    Args:
      path: ``.safetensors``, ``.pth``, ``.pt``, ``.bin``, or a folder with ``config.json`` and
        ``model.safetensors`` or ``pytorch_model.bin``.

    Raises:
      UserError: there is no such file, it is of another kind, or damaged.
    """
    config: dict[str, Any] = {}
    if path.is_dir():
        path, config = _in_folder(path)
    elif not path.is_file():
        raise UserError(f"--input {path}: there is no such file or folder")
    try:
        if path.suffix == ".safetensors":
            state = _open_safetensors(path)
        else:
            state = _state_dict(read_torch_file(path), path)
    except OSError as error:
        raise UserError(f"--input {path} cannot be read: {error.strerror or error}") from None
    prefix = _wrapping(state)
    return Weights(path, {k.removeprefix(prefix): v for k, v in state.items()}, config, prefix)


def _wrapping(keys: Collection[str]) -> str:
    """The prefix that all keys have of networks around the one of the weights; mostly empty."""
    prefix = ""
    while keys:
        inner = (prefix + name for name in WRAPPERS)
        longer = next((p for p in inner if all(key.startswith(p) for key in keys)), None)
        if longer is None:
            break
        prefix = longer
    return prefix


def _in_folder(folder: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
    file = next((folder / name for name in HUB_FILES if (folder / name).is_file()), None)
    if file is None:
        shards = [name for name in HUB_FILES if (folder / f"{name}.index.json").is_file()]
        raise UserError(
            f"--input {folder} has its weights in several shards, which are not read"
            if shards
            else f"--input {folder} holds neither {' nor '.join(HUB_FILES)}"
        )
    try:
        config = schema.parse((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return file, {}
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{folder / 'config.json'} holds no dict")
    return file, config


class _SafeTensor:
    """A tensor of an open .safetensors file."""

    def __init__(self, path: pathlib.Path, file: Any, key: str):
        self._path, self._file, self._key = path, file, key
        self.shape = tuple(file.get_slice(key).get_shape())

    def read(self) -> np.ndarray:
        """Its values.

        Raises:
          UserError: they are of a kind that numpy has not, of eight bits say, or of a shape.
        """
        try:
            return self._file.get_tensor(self._key)
        except (AttributeError, TypeError):
            kind = self._file.get_slice(self._key).get_dtype()
            raise UserError(
                f"{self._path} holds {brief(self._key)} as {kind}, which is not read; save it "
                "as F32"
            ) from None
        except ValueError as error:  # no numbers, and more of sides than numpy can multiply
            raise UserError(f"{self._path} is damaged: {brief(self._key)}: {error}") from None


def _open_safetensors(path: pathlib.Path) -> dict[str, Source]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise UserError(
            f"to read {path.name}, install safetensors: pip install 'jaxad[convert]'"
        ) from None
    try:
        # Stays open as long as its tensors are around: they are read one by one.
        file = safe_open(path, framework="numpy")
        return {key: _SafeTensor(path, file, key) for key in file.keys()}  # noqa: SIM118 - no dict
    except SafetensorError as error:
        raise UserError(
            f"{path} is damaged, or no safetensors file ({error}); was it downloaded whole, and "
            "not a web page or a pointer of Git LFS?"
        ) from None


def _state_dict(content: dict[str, Any], path: pathlib.Path) -> dict[str, Source]:
    """The weights within what was saved: all of it, or a training checkpoint's ``model``."""
    inner = [key for key in CONTAINERS if isinstance(content.get(key), dict)]
    state = content[inner[0]] if inner else content
    others = [str(key) for key, value in state.items() if not isinstance(value, LazyTensor)]
    if others:
        raise UserError(
            f"{path} holds other things than tensors where its weights should be: "
            f"{listing(others)}; weights lie at the top or under {' or '.join(CONTAINERS)}"
        )
    return {str(key): value for key, value in state.items()}
