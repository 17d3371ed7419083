"""The page on regions: its commands are understood, its numbers are those of the code."""

import re

from jaxad.cli.arguments import parser
from jaxad.cli.main import _overrides
from jaxad.data.crop import box_of
from jaxad.run.config import load_config, settings_of


def test_commands_are_understood(project_root, reading):
    page = (project_root / "docs" / "region.md").read_text()
    regions = set()
    for words in reading.commands(page):
        arguments, rest = parser().parse_known_args(words)
        overrides = _overrides(rest, arguments)
        if getattr(arguments, "config", None):
            config = load_config(arguments.config, overrides)
            settings_of(config)
            regions.add(tuple(config.data.region))
    region = load_config("vt_adl:mvtec").data.region
    assert regions == {(0.1, 0.1, 0.9, 0.9), region}


def test_how_far_whole_pixels_are_from_the_papers_crop(project_root):
    page = (project_root / "docs" / "region.md").read_text()
    region = load_config("vt_adl:mvtec").data.region
    off = []
    for side in (700, 800, 840, 900, 1000, 1024):
        box = box_of(region, (side, side))
        off += [abs(border - share * side) for border, share in zip(box, region, strict=True)]
    stated = re.search(r"([\d.]+) to ([\d.]+) original pixels for\nthe sizes of MVTec AD", page)
    assert [f"{min(off):.2f}", f"{max(off):.2f}"] == [*stated.groups()]
