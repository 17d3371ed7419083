"""A small page's content, and a parser that holds pages to what all of them keep."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from jaxad.report.content import Case, ReportContent

VOID = {"meta", "img", "input", "br", "wbr"}
NASTY = "<script>alert('1')</script>\"&"


class Page(HTMLParser):
    """Parses a page, holds it to balance, and collects what tests ask about."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.addresses, self.images = [], [], [], [], []
        self.words = []
        self.feed(text)
        self.close()
        assert not self.open, self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if "id" in attrs:
            self.ids.append(attrs["id"])
        self.addresses += [attrs[name] for name in ("href", "src", "action") if name in attrs]
        if tag == "img":
            self.images.append(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)


def pixels_of(attrs):
    data = base64.b64decode(attrs["src"].split(",", 1)[1])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def make_cases(count=16, *, shape=(32, 48, 3), decided=True, masks=True):
    rng = np.random.default_rng(0)
    cases = []
    for number in range(count):
        label = number % 2
        heat = rng.uniform(0, 1, shape[:2]) + 3 * label
        score = float(number)
        mask = np.zeros(shape[:2], bool)
        mask[8:20, 8:20] = bool(label)
        image = np.full(shape, 40 + 8 * number, np.uint8)
        cases.append(
            Case(
                path=f"test/{number:03d}.png",
                label=label,
                defect="scratch" if label else "good",
                score=score,
                decision=score > 3.5 if decided else None,
                image=image,
                reconstruction=image,
                heat=heat,
                mask=mask if masks else None,
                predicted=heat > 2 if decided else None,
            )
        )
    return cases


METRICS = {
    "protocol": "held-out calibration",
    "checkpoint": "last",
    "resolution": [32, 48],
    "primary_map": "mad",
    "primary_score": "map_max",
    "image_auroc": 0.91234,
    "image_ap": 0.9,
    "image_f1_max": 0.95,
    "pixel_auroc": None,
    "pixel_ap": None,
    "aupro": None,
    "maps": {"mad": {"pixel_auroc": None, "image_auroc": 0.9}, "ssim": {"image_auroc": 0.8}},
    "per_defect": {"scratch": {"count": 8, "image_auroc": 0.9, "pixel_auroc": None}},
    "counts": {"images": 16},
    "undefined": {
        "pixel_auroc": "no image has a mask",
        "pixel_ap": "no image has a mask",
        "aupro": "no region to overlap",
        "maps.mad.pixel_auroc": "no mask for mad",
    },
}
CALIBRATION = {
    "image_threshold": 3.5,
    "pixel_threshold": 2.0,
    "heat_map_low": 0.0,
    "heat_map_high": 4.0,
    "held_out": 40,
    "false_positive_rate": 0.01,
    "smallest_false_positive_rate": 0.025,
}


def make_content(**changes):
    fields = {
        "title": "vae on bottle",
        "metrics": METRICS,
        "calibration": CALIBRATION,
        "config": {"model": {"name": "vae"}, "train": {}},
        "environment": {"seed": 0},
        "history": [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}],
        "cases": make_cases(),
        "curves": {"roc": ([0, 0.5, 1], [0, 1, 1]), "pr": ([0, 1], [1, 0.5])},
    }
    return ReportContent(**fields | changes)


def assert_self_contained(parsed, text):
    assert all(tag not in ("script", "link", "iframe", "object") for tag, _ in parsed.tags)
    assert not any(name.startswith("on") for _, attrs in parsed.tags for name in attrs)
    for address in parsed.addresses:
        assert address.startswith(("#", "data:image/", "./", "../")), address[:80]
        if address.startswith("#"):
            assert address[1:] in parsed.ids
    assert len(parsed.ids) == len(set(parsed.ids))
    assert "http://" not in text and "https://" not in text and "@import" not in text
    assert "url(" not in text
