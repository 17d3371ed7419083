"""What a page says of the threshold, from what calibration.json holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxad.report.content import is_known


def told(calibration: Mapping[str, Any]) -> dict[str, Any]:
    """What the template of the threshold is given of a calibration.

    Args:
      calibration: as in :class:`jaxad.report.content.ReportContent`.

    Returns:
      ``calibration`` without what is None, ``reason`` why there is no threshold, and ``too_few``:
      whether there were fewer good images than the rate asked for needs.
    """
    # What is None there is as good as absent, and of a run from before they came these are.
    known: dict[str, Any] = {"method": "held_out", "set_by_hand": "", "odd_images": []}
    known |= {key: value for key, value in calibration.items() if is_known(value)}
    smallest, rate = (known.get(f"{one}false_positive_rate") for one in ("smallest_", ""))
    return {
        "calibration": known,
        "reason": str(known.get("reason", "this run was not calibrated")).rstrip("."),
        "too_few": smallest is not None and rate is not None and smallest > rate,
    }
