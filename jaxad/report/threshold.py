"""What a page says of the threshold, from what calibration.json holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jaxad.report.content import ScoreRow, is_known


def told(calibration: Mapping[str, Any]) -> dict[str, Any]:
    """What the template of the threshold is given of a calibration.

    Args:
      calibration: as in :class:`jaxad.report.content.ReportContent`.

    Returns:
      ``calibration`` without what is None, ``reason`` why there is no threshold, ``too_few``:
      whether there were fewer good images than the rate asked for needs, and ``deciding``: the odd
      training image whose score the threshold lies just over, None where it is an ordinary one.
    """
    # What is None there is as good as absent, and of a run from before they came these are.
    known: dict[str, Any] = {"method": "held_out", "set_by_hand": "", "odd_images": []}
    known |= {key: value for key, value in calibration.items() if is_known(value)}
    smallest, rate = (known.get(f"{one}false_positive_rate") for one in ("smallest_", ""))
    # The odd ones are the highest, in falling order; the threshold lies under those rejected.
    odd, rejected = known["odd_images"], known.get("held_out_rejected")
    by_odd = not known["set_by_hand"] and rejected is not None and rejected < len(odd)
    return {
        "calibration": known,
        "deciding": odd[rejected] if by_odd else None,
        "reason": str(known.get("reason", "this run was not calibrated")).rstrip("."),
        "too_few": smallest is not None and rate is not None and smallest > rate,
    }


def hidden_by_odd(rows: Iterable[ScoreRow], calibration: Mapping[str, Any]) -> int:
    """How many accepted images score higher than every good training image that is not odd.

    Args:
      rows: of images that are defective, or new.
      calibration: as above.
    """
    limit = calibration.get("odd_limit")
    if not is_known(limit):
        return 0
    return sum(row.decision is False and row.score > limit for row in rows)
