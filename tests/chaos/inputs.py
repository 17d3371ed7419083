"""Mutated files over every reader: `make chaos`; prints a table and fails where a goal is missed.

    python tests/chaos/inputs.py [--count=20000] [--seed=0] [--only=READER] [--json=FILE]

Of a good file some bytes are changed, cut off, repeated or replaced by numbers that are likely to
hurt. A reader may read what is left, or refuse it with a UserError; what else may happen is counted:

  wrong      it was read, but not as its reader promises; of files with checksums: other values
  traceback  any other exception
  crash      the process died
  memory     more than 400 MiB were taken, with data.limit_megapixels=1
  slow       more than 20 seconds were

Every reader runs in a process of its own. A case is repeated by `--only=READER --seed=CASE --count=1`.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import io
import json
import pathlib
import pickle
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable

import numpy as np
from PIL import Image

PROJECT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

from tally import Tally  # noqa: E402

GOLDEN = PROJECT / "tests" / "golden" / "convert"
OUTCOMES = ("read", "refused", "wrong", "traceback", "crash", "memory", "slow")
BAD = OUTCOMES[2:]
MEBIBYTES, SECONDS = 400, 20.0
RECORDS = "jaxad_x-train.array_record-00000-of-00001"


def picture(channels: int = 3) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, channels), np.uint8)
    return pixels if channels == 3 else pixels[..., 0]


def encoded(format: str, mode: str = "RGB", **options) -> bytes:
    stream = io.BytesIO()
    deep = np.arange(480, dtype=np.uint16).reshape(24, 20) * 100
    image = Image.fromarray(deep) if mode == "I;16" else Image.fromarray(picture()).convert(mode)
    image.save(stream, format=format, **options)
    return stream.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def npz() -> bytes:
    stream = io.BytesIO()
    images = np.arange(6 * 25, dtype=np.uint8).reshape(6, 5, 5)
    labels = np.arange(6)
    np.savez_compressed(stream, x_train=images, y_train=labels, x_test=images, y_test=labels)
    return stream.getvalue()


def idx() -> bytes:
    return struct.pack(">4I", 0x803, 6, 5, 5) + bytes(range(150))


def float_tiff(dtype: str, **options) -> bytes:
    import tifffile

    stream = io.BytesIO()
    tifffile.imwrite(stream, np.linspace(0, 1, 480).reshape(24, 20).astype(dtype), **options)
    return stream.getvalue()


def read_as_image(path: pathlib.Path) -> bool:
    from jaxad.data.deep_range import resolve_range_16bit
    from jaxad.data.images import decode, image_dimensions
    from jaxad.data.masks import read_mask

    found = decode(path, channels=3)
    mask = read_mask(path)
    resolve_range_16bit([path], "percentiles")
    right = found.dtype == np.uint8 and found.ndim == 3 and mask.dtype == bool
    return right and found.shape[:2] == mask.shape == image_dimensions(path)


def read_in_zip(path: pathlib.Path) -> bool:
    from jaxad.data.images import decode

    return np.array_equal(decode(f"{path}::a.png", channels=3), picture())


def read_container(path: pathlib.Path) -> bool:
    from jaxad.data.containers import read_arrays

    return all(
        found.images.dtype == np.uint8
        and found.images.ndim in (3, 4)
        and (not len(found.labels) or len(found.labels) == len(found.images))
        for found in read_arrays(path).values()
    )


def read_checked_container(path: pathlib.Path) -> bool:
    """Of a file with checksums: what is read is what was written."""
    from jaxad.data.containers import read_arrays

    expected = np.arange(150, dtype=np.uint8).reshape(6, 5, 5)
    return all(np.array_equal(found.images, expected) for found in read_arrays(path).values())


def read_map(path: pathlib.Path) -> bool:
    from jaxad.evaluation.float_tiff import read_float_tiff

    found = read_float_tiff(path)
    return found.ndim == 2 and bool(np.isfinite(found).all())


def read_weights(path: pathlib.Path) -> bool:
    from jaxad.convert.reading import open_weights

    state = open_weights(path).state
    return all(tensor.read().shape == tuple(tensor.shape) for tensor in state.values())


def message(field: int, content: bytes) -> bytes:
    """A field of a protocol buffer."""
    size, length = len(content), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([field << 3 | 2]) + length + bytes([size]) + content


@functools.cache
def shards() -> dict[str, bytes]:
    """The files of a folder of shards, by name: two pictures, one with a mask."""
    from array_record.python.array_record_module import ArrayRecordWriter

    from jaxad.run.schema import with_digest

    rows = {"train": [["a.png", 0, "good", False]], "test": [["b/a.png", 1, "b", True]]}
    features = b"".join(
        message(1, message(1, key) + message(2, message(1, message(1, encoded("PNG", mode)))))
        for key, mode in ((b"image", "RGB"), (b"mask", "L"))
    )
    table = {"dataset": "x", "category": "", "image_size": [24, 20], "channels": 3,
             "range_16bit": [0.0, 65535.0], "notes": [], **rows}  # fmt: skip
    table = with_digest(table)
    splits = [{"name": split, "shardLengths": ["1"]} for split in rows]
    info = {"name": "jaxad_x", "fileFormat": "array_record", "splits": splits}
    files = {"metadata.json": json.dumps({"jaxad": table}).encode(),
             "dataset_info.json": json.dumps(info).encode()}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for split in rows:
            file = pathlib.Path(folder) / f"jaxad_x-{split}.array_record-00000-of-00001"
            writer = ArrayRecordWriter(str(file), "group_size:1")
            writer.write(message(1, features))
            writer.close()
            files[file.name] = file.read_bytes()
    return files


def read_shards(path: pathlib.Path) -> bool:
    """Of records, which have checksums, and of tables: what is read is what was written."""
    from jaxad.data.datasets import read_table
    from jaxad.data.images import decode
    from jaxad.data.masks import read_mask

    for name, content in shards().items():
        if name != path.name:
            (path.parent / name).write_bytes(content)
    table = read_table(path.parent, name="shards")
    samples = table.samples
    named = [(table.relative(s), s.label, s.defect) for s in samples]
    if named != [("a.png", 0, "good"), ("b/a.png", 1, "b")]:
        return False
    masks = [read_mask(sample.mask) for sample in samples if sample.mask]
    return all(np.array_equal(decode(s.path, channels=3), picture()) for s in samples) and all(
        mask.shape == (24, 20) for mask in masks
    )


def cifar() -> bytes:
    batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]}
    return pickle.dumps(batch, protocol=2)


READERS: dict[str, tuple[str, Callable[[], bytes], Callable[[pathlib.Path], bool]]] = {
    "png": ("a.png", lambda: encoded("PNG"), read_as_image),
    "png16": ("a.png", lambda: encoded("PNG", "I;16"), read_as_image),
    "png_palette": ("a.png", lambda: encoded("PNG", "P"), read_as_image),
    "jpeg": ("a.jpg", lambda: encoded("JPEG"), read_as_image),
    "webp": ("a.webp", lambda: encoded("WEBP", lossless=True), read_as_image),
    "bmp": ("a.bmp", lambda: encoded("BMP"), read_as_image),
    "gif": ("a.gif", lambda: encoded("GIF", "P"), read_as_image),
    "ppm": ("a.ppm", lambda: encoded("PPM"), read_as_image),
    "tiff": ("a.tif", lambda: encoded("TIFF"), read_as_image),
    "tiff16": ("a.tif", lambda: encoded("TIFF", "I;16"), read_as_image),
    "tiff_lzw": ("a.tif", lambda: encoded("TIFF", compression="tiff_lzw"), read_as_image),
    "tiff_deflate": ("a.tif", lambda: encoded("TIFF", compression="tiff_deflate"), read_as_image),
    "zip": ("a.zip", lambda: zipped("a.png", encoded("PNG")), read_in_zip),
    "npz": ("a.npz", npz, read_checked_container),
    "idx": ("t10k-images-idx3-ubyte", idx, read_container),
    "idx_gz": ("t10k-images-idx3-ubyte.gz", lambda: gzip.compress(idx()), read_checked_container),
    "cifar_binary": ("test_batch.bin", lambda: bytes(2 * 3073), read_container),
    "cifar_pickle": ("test_batch", cifar, read_container),
    "shards_table": ("metadata.json", lambda: shards()["metadata.json"], read_shards),
    "shards_info": ("dataset_info.json", lambda: shards()["dataset_info.json"], read_shards),
    "shards_records": (RECORDS, lambda: shards()[RECORDS], read_shards),
    "map_half": ("a.tiff", lambda: float_tiff("f2", compression="zlib"), read_map),
    "map_float": ("a.tiff", lambda: float_tiff("f4"), read_map),
    "map_double": ("a.tiff", lambda: float_tiff("f8", tile=(16, 16)), read_map),
    "torch": ("a.pth", lambda: (GOLDEN / "timm_vit.pth").read_bytes(), read_weights),
    "torch_old": ("a.pth", lambda: (GOLDEN / "timm_vit_old.pth").read_bytes(), read_weights),
    "safetensors": (
        "a.safetensors",
        lambda: (GOLDEN / "hf_mae" / "model.safetensors").read_bytes(),
        read_weights,
    ),
}


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Most changes are made near the ends, where formats keep what they say of themselves."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        if not changed:
            break
        n = len(changed)
        near = min(n, 400)
        place = rng.choice((rng.randrange(near), n - 1 - rng.randrange(near), rng.randrange(n)))
        match rng.randrange(7):
            case 0:
                changed[place] ^= 1 << rng.randrange(8)
            case 1:
                changed[place] = rng.randrange(256)
            case 2:
                hurting = rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**20, 65535))
                changed[place : place + 4] = struct.pack(rng.choice("<>") + "I", hurting)
            case 3:
                del changed[place : place + rng.choice((1, 2, 4, 64))]
            case 4:
                changed[place:place] = changed[place : place + rng.choice((1, 4, 64))]
            case 5:
                changed[place : place + 8] = struct.pack("<q", rng.choice((-1, 2**62, 2**63 - 1)))
            case 6 if rng.random() < 0.3:
                del changed[place:]
    return bytes(changed)


def run_reader(name: str, first: int, count: int) -> None:
    """In a process of its own: prints the case before each, and its outcome behind it."""
    from jaxad.data.limits import limit_images
    from jaxad.run.errors import UserError

    warnings.simplefilter("ignore")
    limit_images(1.0)
    file, make, read = READERS[name]
    content = make()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / file
        path.write_bytes(content)
        if not read(path):
            raise SystemExit(f"{name}: the file that was not changed is read wrongly")
        for case in range(first, first + count):
            print(json.dumps([case]), flush=True)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            path.unlink()  # files that are remembered are told apart by their time and size
            path = pathlib.Path(folder) / str(case) / file
            path.parent.mkdir()
            path.write_bytes(mutated(content, random.Random(f"{name} {case}")))
            begun, why = time.monotonic(), ""
            try:
                outcome = "read" if read(path) else "wrong"
            except UserError:
                outcome = "refused"
            except BaseException as error:
                outcome, why = "traceback", f"{type(error).__name__}: {error}"[:200]
            if time.monotonic() - begun > SECONDS:
                outcome = "slow"
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            if grown > MEBIBYTES * 1024:
                outcome = "memory"
            print(json.dumps([case, outcome, why]), flush=True)


def try_reader(tally: Tally, name: str, first: int, count: int) -> None:
    """Runs a reader, again behind every case that kills it."""
    end = first + count
    while first < end:
        command = [sys.executable, __file__, f"--child={name}", f"--seed={first}",
                   f"--count={end - first}"]  # fmt: skip
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        if not lines:
            raise SystemExit(f"{name}: {done.stderr[-2000:]}")
        for case, *found in lines:
            if found:
                outcome, why = found
                note = f"{name} {case}: {outcome} {why}" if outcome in BAD else ""
                tally.add(name, outcome, note)
        first = lines[-1][0] + 1
        if len(lines[-1]) == 1:
            tally.add(name, "crash", f"{name} {first - 1}: crash, exit status {done.returncode}")


def run(count: int, seed: int, only: str = "", json_file: str = "") -> list[str]:
    """Prints the table; returns what went wrong, one line for each case."""
    shares = dict.fromkeys([only] if only else READERS, 1)
    tally = Tally("mutated", OUTCOMES, shares, count, seed=seed, json_file=json_file)
    for name, first, number in tally.batches():
        try_reader(tally, name, first, number)
    tally.show()
    return tally.notes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", default="", choices=["", *READERS])
    parser.add_argument("--json", default="", help="file for the table, which is gone on with")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_reader(arguments.child, arguments.seed, arguments.count)
        return 0
    return 1 if run(arguments.count, arguments.seed, arguments.only, arguments.json) else 0


if __name__ == "__main__":
    sys.exit(main())
