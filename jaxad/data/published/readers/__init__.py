"""One reader per published data set: ``(root, category, **options) -> SampleTable``."""

from jaxad.data.published.readers.elpv import read_elpv
from jaxad.data.published.readers.kolektor_sdd import read_kolektor_sdd
from jaxad.data.published.readers.magnetic_tile import read_magnetic_tile
from jaxad.data.published.readers.mvtec_like import read_btad, read_miad, read_mvtec_ad
from jaxad.data.published.readers.one_class import read_cifar10, read_mnist
from jaxad.data.published.readers.shards import read_shards, shard_categories
from jaxad.data.published.readers.ucsd_ped1 import read_ucsd_ped1

READERS = {
    "mvtec_ad": read_mvtec_ad,
    "miad": read_miad,
    "btad": read_btad,
    "mnist": read_mnist,
    "cifar10": read_cifar10,
    "ucsd_ped1": read_ucsd_ped1,
    "elpv": read_elpv,
    "kolektor_sdd": read_kolektor_sdd,
    "magnetic_tile": read_magnetic_tile,
}

__all__ = ["READERS", "read_shards", "shard_categories"]
