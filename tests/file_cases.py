"""Files as people have them: each case is written, inspected and read, and is a row in the docs.

`python tests/file_cases.py` prints the second table of docs/folders.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pathlib
import re
import tempfile
from collections.abc import Callable

import numpy as np
from folder_case import empty, mask, photo
from PIL import Image

from jaxad.data.datasets import read_table
from jaxad.data.inspection import inspect_table
from jaxad.evaluation.inputs import read_inputs
from jaxad.run.config import load_settings
from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder
from jaxad.run.settings import Settings
from jaxad.training.inputs import prepare_inputs

LARGE = (60, 80)
"""Of masks in which outlines matter."""


@dataclasses.dataclass(frozen=True)
class Case:
    """Files and what is said of them.

    Attributes:
      write: writes the folder, in the MVTec layout as a rule.
      inspected: a part of each sentence of `jaxad data inspect`; () for none at all.
      trained: a part of each note with which training begins, or of the error that it ends with.
      judged: of an evaluation's error.
      keys: of ``data``.
    """

    write: Callable[[pathlib.Path], None]
    inspected: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    judged: str = ""
    keys: dict[str, object] = dataclasses.field(default_factory=dict)


def save(place: pathlib.Path, picture: np.ndarray | Image.Image, **options: object) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(place, **options)


def dataset(
    root: pathlib.Path,
    *,
    image: Callable[[int], np.ndarray | Image.Image] = photo,
    drawn: Callable[[int], np.ndarray | Image.Image] = mask,
    ending: str = "png",
    mask_ending: str = "png",
    mask_options: dict[str, object] | None = None,
    train: int = 4,
    **options: object,
) -> None:
    """Good images for training, two of each kind for testing, masks of the defective ones."""
    for i in range(train):
        save(root / f"train/good/{i}.{ending}", image(i), **options)
    for i in range(2):
        save(root / f"test/good/{i}.{ending}", image(50 + i), **options)
        save(root / f"test/hole/{i}.{ending}", image(90 + i), **options)
        save(root / f"ground_truth/hole/{i}_mask.{mask_ending}", drawn(i), **mask_options or {})


def gray(seed: int) -> np.ndarray:
    return photo(seed)[..., 0]


def twelve_bits(seed: int) -> np.ndarray:
    return gray(seed).astype(np.uint16) * 16 + 15


def transparent(seed: int) -> np.ndarray:
    return np.dstack([photo(seed), np.zeros(photo(seed).shape[:2], np.uint8)])


def small_integers(seed: int) -> Image.Image:
    return Image.fromarray(gray(seed).astype(np.int32))


def one_kind_of_palette(seed: int) -> Image.Image:
    """The first colour, index 0, is the defect; the second one is black."""
    picture = Image.fromarray(np.uint8(mask(seed) == 0)).convert("L")
    picture.putpalette([255, 0, 0, 0, 0, 0])
    return picture


def smoothed(seed: int) -> Image.Image:
    large = mask(seed, LARGE).repeat(3, axis=0).repeat(3, axis=1)
    return Image.fromarray(large).resize(LARGE[::-1], Image.Resampling.LANCZOS)


def round_defect(seed: int) -> Image.Image:
    rows, columns = np.mgrid[: LARGE[0], : LARGE[1]]
    inside = (rows - 30) ** 2 + (columns - 40 - seed) ** 2 < 200
    return Image.fromarray(np.uint8(inside) * 255)


def white_after_jpeg(seed: int) -> Image.Image:
    stream = io.BytesIO()
    slanted = np.abs(np.subtract(*np.mgrid[: LARGE[0], : LARGE[1]])) < 4 + seed
    Image.fromarray(np.uint8(slanted) * 255).save(stream, "JPEG", quality=75)
    return Image.fromarray((np.asarray(Image.open(stream)) > 5) * np.uint8(255))


def pages(root: pathlib.Path) -> None:
    dataset(root)
    save(root / "train/good/9.tif", photo(9), save_all=True,
         append_images=[Image.fromarray(photo(10))])  # fmt: skip


def mixed_depths(root: pathlib.Path) -> None:
    dataset(root)
    for i in range(2):
        save(root / f"test/good/{i}.png", twelve_bits(50 + i))


def copies(root: pathlib.Path) -> None:
    dataset(root)
    save(root / "test/good/again.bmp", photo(0))
    save(root / "train/good/again.tif", photo(1))
    save(root / "test/hole/2.bmp", photo(50))


def copied_files(root: pathlib.Path) -> None:
    dataset(root)
    for name in ("test/good/again.png", "train/good/again.png"):
        (root / name).write_bytes((root / "train/good/0.png").read_bytes())


def damaged(root: pathlib.Path) -> None:
    dataset(root)
    (root / "test/good/0.png").write_bytes((root / "test/good/0.png").read_bytes()[:100])
    (root / "test/hole/0.png").write_bytes(b"")
    (root / "ground_truth/hole/1_mask.png").write_bytes(b"no image")
    os.symlink("gone.png", root / "test/hole/linked.png")


def damaged_training_images(root: pathlib.Path) -> None:
    dataset(root)
    for i in range(2):
        (root / f"train/good/{i}.png").write_bytes(b"no image")


def damaged_masks_that_tell(root: pathlib.Path) -> None:
    for i in range(8):
        save(root / f"images/{i}.png", photo(i))
        save(root / f"masks/{i}.png", mask(i) if i < 2 else empty(i))
    for i in (1, 5):
        (root / f"masks/{i}.png").write_bytes(b"no image")


def misfits(root: pathlib.Path) -> None:
    dataset(root)
    save(root / "ground_truth/hole/1_mask.png", mask(1)[:8])
    save(root / "ground_truth/good/0_mask.png", mask(0))


def without_good_test_images(root: pathlib.Path) -> None:
    dataset(root)
    for i in range(2):
        (root / f"test/good/{i}.png").unlink()


def large(seed: int) -> np.ndarray:
    return photo(seed, LARGE)


IN_BETWEEN = "masks with levels in between, as compression with loss"

CASES: dict[str, Case] = {
    "12 bits a pixel in 16-bit files": Case(
        lambda root: dataset(root, image=twelve_bits),
        ("reach the value 4095 of 65535, so that the model sees 16 of 256 levels; "
         "data.range_16bit=12",),
        ("the model sees 16 of 256 levels; data.range_16bit=12",),
    ),
    "the same with `data.range_16bit=12`": Case(
        lambda root: dataset(root, image=twelve_bits),
        ("the model sees 16 of 256 levels; data.range_16bit=12",), keys={"range_16bit": "12"},
    ),
    "TIFF files whose tags give 12 bits": Case(
        lambda root: dataset(root, image=twelve_bits, ending="tif", tiffinfo={281: 4095})
    ),
    "whole numbers to 255 in 32-bit TIFF files": Case(
        lambda root: dataset(root, image=small_integers, ending="tif"),
        ("the model sees 1 of 256 levels; data.range_16bit=8",),
        ("the model sees 1 of 256 levels; data.range_16bit=8",),
    ),
    "training images of 8 bits, test images of 12": Case(
        mixed_depths,
        ("gray images of more than 8 bits are among 6 others",),
        ("gray images of more than 8 bits are among 6 others",),
    ),
    "the same with `data.range_16bit=12`, which the test images are read with": Case(
        mixed_depths,
        ("they reach the value 4095, which data.range_16bit=12 makes white",),
        ("gray images of more than 8 bits are among 6 others",),
        keys={"range_16bit": "12"},
    ),
    "alpha 0 everywhere": Case(
        lambda root: dataset(root, image=transparent),
        ("images that alpha hides altogether, refused without data.alpha=ignore: 8",),
        ("is transparent everywhere (alpha 0)",),
    ),
    "all images of one gray": Case(
        lambda root: dataset(root, image=lambda seed: np.full((12, 16), 77, np.uint8)),
        ("levels from 77 to 77, 1 of 256", "good and defective, equal", "in training and test"),
        ("equal to the last pixel, as the model sees them: nothing but that picture",),
    ),
    "a picture in training and test, twice in training, good and defective, in other formats": Case(
        copies,
        ("pictures in training and test, equal to the last pixel: 1, first test/good/again.bmp",
         "pictures good and defective, equal to the last pixel: 1, first test/good/0.png",
         "pictures more than once in training, equal to the last pixel: 1"),
        ("pictures more than once in training, equal to the last pixel as the model sees them: 1",
         "a copy among the held-out images"),
    ),
    "the same, copied files": Case(
        copied_files,
        ("pictures in training and test, equal to the last pixel: 1",
         "pictures more than once in training"),
        ("pictures in training and test, byte for byte: 1",
         "pictures more than once in training, byte for byte: 1"),
    ),
    "inverted masks": Case(
        lambda root: dataset(root, drawn=lambda seed: 255 - mask(seed)),
        ("masks that mark more than half of their image (inverted?): 2",),
        ("masks that mark more than half of their image (inverted?): 2",),
    ),
    "masks that mark nothing": Case(
        lambda root: dataset(root, drawn=empty),
        ("anomalous images whose mask marks nothing: 2",),
        ("anomalous images whose mask marks nothing: 2",),
    ),
    "masks of the values 0 and 1, in JPEG": Case(
        lambda root: dataset(
            root, drawn=lambda seed: mask(seed) // 255, mask_ending="jpg", mask_options={"quality": 95}
        ),
        ("masks of low levels in a format with loss: 2",),
        ("masks of low levels in a format with loss: 2",),
    ),
    "masks whose palette begins with the colour of the defect": Case(
        lambda root: dataset(root, drawn=one_kind_of_palette)
    ),
    "masks in JPEG": Case(
        lambda root: dataset(root, image=large, drawn=round_defect, mask_ending="jpg"),
        (IN_BETWEEN,), (IN_BETWEEN,),
    ),
    "resampled masks with smooth outlines": Case(
        lambda root: dataset(root, image=large, drawn=smoothed), (IN_BETWEEN,), (IN_BETWEEN,)
    ),
    "masks that were in JPEG and then drawn white": Case(
        lambda root: dataset(root, image=large, drawn=white_after_jpeg),
        ("masks with many parts of 4 pixels or fewer beside a large one",),
    ),
    "a TIFF file of several pages": Case(
        pages,
        ("1 of 11 files that were looked at hold several pages or frames (first 9.tif)",),
        ("hold several pages or frames (first 9.tif)",),
    ),
    "damaged, empty and linked test images, a damaged mask": Case(
        damaged,
        ("4 files cannot be used",),
        judged="3 of 5 images cannot be read",
    ),
    "damaged training images": Case(
        damaged_training_images,
        ("2 files cannot be used",),
        ("2 of 4 images cannot be read",),
    ),
    "the same with `data.holdout=0.5`": Case(
        damaged_training_images,
        ("2 files cannot be used",),
        ("2 of 4 images cannot be read",),
        keys={"calibration": "held_out", "holdout": 0.5},
    ),
    "the same with `data.stream=True`": Case(
        damaged_training_images,
        ("2 files cannot be used",),
        ("2 of 4 images cannot be read",),
        keys={"stream": True},
    ),
    "damaged masks, in a folder where masks tell which images are good": Case(
        damaged_masks_that_tell,
        ("2 files cannot be used", "images whose masks tell if they are good but cannot be read"),
        ("images whose masks tell if they are good but cannot be read",),
        judged="2 masks cannot be read",
    ),
    "a mask of another size, a mask that marks something on a good image": Case(
        misfits,
        ("1_mask.png is 8 x 16 (height x width) but its image is 12 x 16",
         "good images whose mask marks something: 1 (test/good/0.png)"),
        judged="a mask must have the size of its image",
    ),
    "one good training image": Case(
        lambda root: dataset(root, train=1),
        ("there is 1 good training image",),
    ),
    "no good test images": Case(
        without_good_test_images,
        ("there are no good test images, so no image ROC can be measured",),
    ),
}  # fmt: skip


def inspected(root: pathlib.Path) -> list[str]:
    """The notes of `jaxad data inspect`, without the place."""
    return [_placeless(note, root) for note in inspect_table(read_table(root)).notes]


def trained(root: pathlib.Path, case: Case) -> tuple[list[str], str]:
    """The notes with which training begins, and the error that it ends with."""
    config = _config(root, case)
    try:
        inputs = prepare_inputs(config)
        inputs.train[np.arange(len(inputs.train))]  # streamed ones are read by now
    except UserError as error:
        return [], _placeless(str(error), root)
    return [_placeless(note, root) for note in inputs.record["notes"]], ""


def judged(root: pathlib.Path, case: Case) -> str:
    """The error with which an evaluation of a trained run ends; empty without one."""
    config = _config(root, case)
    run = RunFolder(root / ".run")
    run.create()
    run.write_json(run.data, prepare_inputs(config).record)
    try:
        read_inputs(run, config, None)
    except UserError as error:
        return _placeless(str(error), root)
    return ""


def _config(root: pathlib.Path, case: Case) -> Settings:
    keys = {f"data.{key}": value for key, value in case.keys.items()}
    return load_settings("pca", {"data.root": str(root), "data.image_size": (8, 8), **keys})


def _placeless(text: str, root: pathlib.Path) -> str:
    return text.replace(f"{root}/", "").replace(str(root), "the folder")


def page() -> str:
    """The second table of docs/folders.md."""
    rows = ["| your files | `data inspect` says | `train` says |", "|---|---|---|"]
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            case.write(root)
            # What the log says is in the notes.
            with contextlib.redirect_stdout(io.StringIO()):
                notes, error = trained(root, case)
                told = inspected(root)
        said = f"refused: {error}" if error else "; ".join(notes)
        row = f"| {name} | {'; '.join(told) or 'nothing'} | {said or 'nothing'} |"
        rows.append(re.sub(r"\d+ parts that", "some parts that", row))  # the encoder's choice
    return "\n".join(rows)


if __name__ == "__main__":
    print(page())
