"""UCSD Ped1: clips of frames; masks for some test clips, labels of frames for all of them."""

from __future__ import annotations

import pathlib
import re

from jaxad.data.files import image_files
from jaxad.data.layouts import subfolders
from jaxad.data.masks import read_mask
from jaxad.data.table import GOOD, Sample, SampleTable
from jaxad.run.errors import UserError

CLIPS = {"Train": 34, "Test": 36}
MASKED_CLIPS = 10
FRAMES = 200

_KIND = "anomaly"
_MASKS = "_gt"
_LABELS = "UCSDped1.m"
_RANGES = re.compile(r"gt_frame\s*=\s*\[([^\]]*)\]")


def read_ucsd_ped1(root: pathlib.Path, category: str) -> SampleTable:
    """Reads the clips.

    A frame of a clip with masks is anomalous where its mask marks anything; of the other clips
    ``UCSDped1.m`` tells the anomalous frames. Clips that neither tells of are left out.

    Args:
      root: the data set's folder, or its ``UCSDped1``.
      category: ``"masked"``: only test clips with masks, as pixel-wise figures are given in
        papers; ``""``: all.

    Raises:
      UserError: the folder is no UCSD Ped1, or there is no test clip with labels.
    """
    base = root / "UCSDped1" if (root / "UCSDped1").is_dir() else root
    if not (base / "Train").is_dir() or not (base / "Test").is_dir():
        raise UserError(
            f"{base} holds no folders Train and Test: this is not ucsd_ped1 "
            "(data.root is UCSD_Anomaly_Dataset.v1p2 or its UCSDped1)"
        )
    notes: list[str] = []
    samples = [
        Sample(str(frame), "train", GOOD)
        for clip in _clips(base / "Train", notes)
        for frame in _frames(clip, notes)
    ]
    ranges = _anomalous_frames(base, notes)
    masked, unlabelled = 0, []
    for clip in _clips(base / "Test", notes):
        masks = clip.with_name(clip.name + _MASKS)
        if masks.is_dir():
            masked += 1
            samples += _masked_clip(clip, masks, ranges.get(clip.name), notes)
        elif category == "masked":
            continue
        elif clip.name in ranges:
            for frame in _frames(clip, notes):
                bad = int(frame.stem) in ranges[clip.name]
                samples.append(Sample(str(frame), "test", _KIND if bad else GOOD))
        else:
            unlabelled.append(clip.name)
    if masked != MASKED_CLIPS:
        notes.append(f"{masked} test clips have masks, published are {MASKED_CLIPS}")
    if unlabelled:
        notes.append(
            f"{len(unlabelled)} test clips have neither masks nor labels in {_LABELS} and are left "
            f"out: {', '.join(unlabelled)}"
        )
    return SampleTable(str(base), "ucsd_ped1", category, tuple(samples), tuple(notes))


def _clips(folder: pathlib.Path, notes: list[str]) -> list[pathlib.Path]:
    clips = [f for f in subfolders(folder) if re.fullmatch(rf"{folder.name}\d+", f.name)]
    if len(clips) != CLIPS[folder.name]:
        notes.append(f"{folder.name} holds {len(clips)} clips, published are {CLIPS[folder.name]}")
    return clips


def _frames(clip: pathlib.Path, notes: list[str]) -> list[pathlib.Path]:
    frames = [clip / name for name in image_files(clip) if name.rpartition(".")[0].isdecimal()]
    if len(frames) != FRAMES:
        notes.append(f"{clip.name} holds {len(frames)} frames, published are {FRAMES}")
    return frames


def _masked_clip(
    clip: pathlib.Path, masks: pathlib.Path, labelled: set[int] | None, notes: list[str]
) -> list[Sample]:
    by_number = {
        int(name.rpartition(".")[0]): masks / name
        for name in image_files(masks)
        if name.rpartition(".")[0].isdecimal()
    }
    samples, without, contradicted = [], 0, 0
    for frame in _frames(clip, notes):
        mask = by_number.get(int(frame.stem))
        bad = mask is not None and bool(read_mask(mask).any())
        without += mask is None
        contradicted += labelled is not None and bad != (int(frame.stem) in labelled)
        samples.append(
            Sample(str(frame), "test", _KIND if bad else GOOD, str(mask) if bad else None)
        )
    if without:
        notes.append(f"{masks.name} lacks masks of {without} frames, which are taken as good")
    if contradicted:
        notes.append(
            f"{clip.name}: on {contradicted} frames the masks contradict {_LABELS}; masks count"
        )
    return samples


def _anomalous_frames(base: pathlib.Path, notes: list[str]) -> dict[str, set[int]]:
    """Clip -> numbers of its anomalous frames; the file lists the clips in order."""
    file = next((f for f in (base / "Test" / _LABELS, base / _LABELS) if f.is_file()), None)
    if file is None:
        notes.append(f"{_LABELS}, which labels the frames of clips without masks, is missing")
        return {}
    result = {}
    for number, match in enumerate(_RANGES.finditer(file.read_text(errors="replace")), start=1):
        frames: set[int] = set()
        for part in re.split(r"[,\s]+", match[1].strip()):
            first, _, last = part.partition(":")
            if not (first.isdecimal() and (last or first).isdecimal()):
                raise UserError(f"{file}: {match[0]!r} is no list of frames such as [60:152]")
            frames.update(range(int(first), int(last or first) + 1))
        result[f"Test{number:03d}"] = frames
    if len(result) != CLIPS["Test"]:
        notes.append(f"{_LABELS} labels {len(result)} clips, published are {CLIPS['Test']}")
    return result
