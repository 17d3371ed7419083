"""What the pickles in PyTorch's files may ask for, see :mod:`jaxad.run.pickles`."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxad.run.pickles import BadPickleError, Global, Vocabulary, short

DTYPES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
"""PyTorch's storage types -> names of numpy's dtypes (with ml_dtypes)."""


class Storage(NamedTuple):
    """A block of ``numel`` numbers elsewhere in the file."""

    key: str
    dtype: str
    numel: int


class Tensor(NamedTuple):
    """A strided view of a storage; offset and strides in numbers, as PyTorch has them."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Bag(dict):
    """What the pickle says of an object whose class does not matter (``argparse.Namespace``)."""


def _parameter(tensor: Any, *_: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise BadPickleError("a parameter without a tensor")
    return tensor


def _storage(identity: Any) -> Storage:
    match identity:
        case ("storage", Global(kind), str(key), str(), int(count), *rest) if (
            kind in DTYPES and rest in ([], [None])
        ):
            return Storage(key, DTYPES[kind], count)
    raise BadPickleError(f"{short(identity)} is no storage")


def _change(target: Any, state: Any) -> bool:
    if isinstance(target, Bag) and isinstance(state, dict):
        target.update(state)
    # What PyTorch hangs on a state dict (`_metadata`) says nothing about the weights.
    return isinstance(target, dict)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Storage) or not isinstance(offset, int):
        raise BadPickleError("a tensor without a storage")
    shape, strides = _whole_numbers(shape), _whole_numbers(strides)
    if len(shape) != len(strides) or len(shape) > 8:
        raise BadPickleError(f"a tensor of shape {shape} with strides {strides}")
    return Tensor(storage, offset, shape, strides)


def _whole_numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or not all(type(v) is int for v in values):
        raise BadPickleError(f"{short(values)} is no shape")
    return tuple(values)


def _pairs(items: Any = ()) -> dict[Any, Any]:
    if not isinstance(items, list | tuple):
        raise BadPickleError("an ordered dict of something else than pairs")
    result = {}
    for item in items:
        match item:
            case [str(key), value]:
                result[key] = value
            case _:
                raise BadPickleError("an ordered dict of something else than pairs")
    return result


TORCH = Vocabulary(
    names={
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_parameter": _parameter,
        # Old files give the items as a list of pairs, newer ones add them one by one.
        "collections.OrderedDict": _pairs,
        "argparse.Namespace": lambda *_: Bag(),
        "torch.Size": _whole_numbers,
        **dict.fromkeys(DTYPES),
    },
    change=_change,
    persistent=_storage,
    advice="Weights need no such thing: take a .safetensors file, or one of "
    "torch.save(model.state_dict(), ...) alone",
)
