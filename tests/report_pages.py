"""A small page's content, and a parser that holds pages to what all of them keep."""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from jaxad.report.content import Case, ReportContent, Scale
from jaxad.report.gallery import Shown
from jaxad.report.pictures import store
from jaxad.report.predictions import PredictionsContent

VOID = {"meta", "img", "input", "br", "wbr"}
NASTY = "<script>alert('1')</script>\"&"


class Page(HTMLParser):
    """Parses a page, holds it to balance, and collects what tests ask about."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.addresses, self.images = [], [], [], [], []
        self.words, self.scripts, self.stored = [], [], {}
        self.explained, self.inside_tip = [], 0
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
        if tag == "script":
            self.scripts.append([attrs, ""])
        if tag not in VOID:
            self.open.append(tag)
        if attrs.get("role") == "tooltip":
            self.inside_tip = len(self.open)

    def handle_startendtag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if "id" in attrs:  # of an image or a path in the store
            self.stored[attrs["id"]] = attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if len(self.open) < self.inside_tip:
            self.inside_tip = 0

    def handle_data(self, data):
        if self.inside_tip:
            self.explained.append(data)
        elif self.open and self.open[-1] == "script":
            self.scripts[-1][1] += data
        elif not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def policy(self):
        """The directives of the page's content security policy, by name."""
        (policy,) = (
            attrs["content"]
            for tag, attrs in self.tags
            if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
        )
        return {one.split()[0]: " ".join(one.split()[1:]) for one in policy.split(";")}

    @property
    def data(self):
        """What the page's script reads."""
        return json.loads(self.scripts[0][1])


def pixels_of(attrs, mode="RGB"):
    """The pixels of an image on a page, or of one in its store, as (h, w, c)."""
    data = base64.b64decode(attrs.get("src", attrs.get("href")).split(",", 1)[1])
    return np.asarray(Image.open(io.BytesIO(data)).convert(mode)).astype(int)


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


SCALE = Scale(0.0, 4.0, 2.0)


def make_shown(number, score, *, path="", decision=None):
    rng = np.random.default_rng(number)
    heat = rng.uniform(0, 4, (24, 32))
    case = Case(
        path=path or f"new/{number:05}.png",
        label=None,
        defect="",
        score=score,
        decision=score > 3.5 if decision is None else decision,
        image=rng.integers(0, 256, (24, 32, 3), dtype=np.uint8),
        heat=heat,
        predicted=heat > 2,
        regions=heat > 2,
    )
    absent = {"r": "none from this method"}
    return Shown(number, case.row, store(case, SCALE), absent, "./overlays/a.png", ("a note",))


def make_predictions(shown, **changes):
    rows = [one.row for one in shown]
    rejected = sum(bool(row.decision) for row in rows)
    fields = {
        "title": "pca on parts",
        "facts": {"run": "runs/pca"},
        "counts": {"images": len(rows), "rejected": rejected, "accepted": len(rows) - rejected},
        "complete": True,
        "calibration": CALIBRATION | {"method": "held_out"},
        "scale": SCALE,
        "scores": rows,
        "shown": shown,
    }
    return PredictionsContent(**fields | changes)


def assert_self_contained(parsed, text):
    assert all(tag not in ("link", "iframe", "object") for tag, _ in parsed.tags)
    assert_only_our_script(parsed)
    assert not any(name.startswith("on") for _, attrs in parsed.tags for name in attrs)
    for address in parsed.addresses:
        assert address.startswith(("#", "data:image/", "./", "../")), address[:80]
        if address.startswith("#"):
            assert address[1:] in parsed.ids
    assert len(parsed.ids) == len(set(parsed.ids))
    assert "http://" not in text and "https://" not in text and "@import" not in text
    assert "url(" not in text


def assert_only_our_script(parsed):
    """The page's data and one script, whose hash is all that the policy lets run."""
    policy = parsed.policy
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["img-src"] == "data:"
    (data, values), (attrs, script) = parsed.scripts
    assert data == {"type": "application/json", "id": "data"} and attrs == {}
    assert isinstance(json.loads(values), dict) and "<" not in values
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy["script-src"] == f"'sha256-{digest}'"
    # What would let text become HTML or code, or leave the page.
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|fetch|XMLHttp", script
    )
