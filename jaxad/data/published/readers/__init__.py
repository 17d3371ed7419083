"""One reader per published data set: ``(root, category, **options) -> SampleTable``."""

from collections.abc import Callable
from functools import partial

from jaxad.data.published.readers.elpv import read_elpv
from jaxad.data.published.readers.kolektor_sdd import read_kolektor_sdd
from jaxad.data.published.readers.magnetic_tile import read_magnetic_tile
from jaxad.data.published.readers.mvtec_like import read_mvtec_like
from jaxad.data.published.readers.one_class import read_one_class
from jaxad.data.published.readers.shards import read_shards, shard_categories
from jaxad.data.published.readers.ucsd_ped1 import read_ucsd_ped1
from jaxad.data.table import SampleTable

READERS: dict[str, Callable[..., SampleTable]] = {
    "mvtec_ad": partial(read_mvtec_like, name="mvtec_ad"),
    "miad": partial(read_mvtec_like, name="miad"),
    "btad": partial(read_mvtec_like, name="btad"),
    "mnist": partial(read_one_class, name="mnist"),
    "cifar10": partial(read_one_class, name="cifar10"),
    "ucsd_ped1": read_ucsd_ped1,
    "elpv": read_elpv,
    "kolektor_sdd": read_kolektor_sdd,
    "magnetic_tile": read_magnetic_tile,
}

__all__ = ["READERS", "read_shards", "shard_categories"]
