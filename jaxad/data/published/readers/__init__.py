"""One reader per published data set: ``(root, category, **options) -> SampleTable``.

Data sets with a form of the catalogue, or the MVTec layout, share one; the others have their own.
"""

from collections.abc import Callable
from functools import partial

from jaxad.data.published.catalogue import CATALOGUE
from jaxad.data.published.readers.elpv import read_elpv
from jaxad.data.published.readers.kolektor_sdd import read_kolektor_sdd
from jaxad.data.published.readers.magnetic_tile import read_magnetic_tile
from jaxad.data.published.readers.one_class import read_one_class
from jaxad.data.published.readers.shards import read_shards, shard_categories
from jaxad.data.published.readers.shipped import read_shipped, recognised, shipped_categories
from jaxad.data.published.readers.ucsd_ped1 import read_ucsd_ped1
from jaxad.data.table import SampleTable

READERS: dict[str, Callable[..., SampleTable]] = {
    **{name: partial(read_shipped, name=name) for name in CATALOGUE},
    "mnist": partial(read_one_class, name="mnist"),
    "cifar10": partial(read_one_class, name="cifar10"),
    "ucsd_ped1": read_ucsd_ped1,
    "elpv": read_elpv,
    "kolektor_sdd": read_kolektor_sdd,
    "magnetic_tile": read_magnetic_tile,
}

__all__ = ["READERS", "read_shards", "recognised", "shard_categories", "shipped_categories"]
