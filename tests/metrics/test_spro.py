"""AU-sPRO against a plain write-up of its definition, one threshold at a time, sharing no code."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxad import metrics


def area_by_definition(maps, regions, saturations, limit):
    """The definition: for every score t, the mean of min(|pixels >= t in a region| / s, 1)."""
    outside = [
        ~np.any([np.asarray(r) > 0 for r in own], axis=0) if own else np.ones(image.shape, bool)
        for image, own in zip(maps, regions, strict=True)
    ]
    points = [(0.0, 0.0)]
    for t in sorted({v for image in maps for v in image.ravel().tolist()}, reverse=True):
        false = sum(((i >= t) & o).sum() for i, o in zip(maps, outside, strict=True))
        found = [
            min(((image >= t) & (np.asarray(region) > 0)).sum() / s, 1.0)
            for image, own, areas in zip(maps, regions, saturations, strict=True)
            for region, s in zip(own, areas, strict=True)
        ]
        points.append((false / sum(o.sum() for o in outside), np.mean(found)))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x1 > limit:
            share = (limit - x0) / (x1 - x0) if x0 < limit else 0.0
            x1, y1 = min(max(x0, limit), x1), y0 + (y1 - y0) * share
        area += (x1 - x0) * (y0 + y1) / 2 if x0 < limit else 0.0
    return area / limit


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 5, 1000]), st.sampled_from([0.05, 0.3, 1.0]))
def test_the_definition(seed, levels, limit):
    rng = np.random.default_rng(seed)
    shape = (5, 7)
    maps = [rng.integers(0, levels, shape) / 4.0 for _ in range(3)]
    regions, saturations = [[]], [[]]  # the first image is good
    for _ in range(2):
        own = [rng.random(shape) < 0.2 for _ in range(rng.integers(1, 4))]  # they overlap at times
        for region in own:
            region[0, 0] = True
        regions.append(own)
        saturations.append([int(rng.integers(1, r.sum() + 1)) for r in own])
    expected = area_by_definition(maps, regions, saturations, limit)
    # Both sum in float64.
    assert metrics.au_spro(maps, regions, saturations, limit=limit) == pytest.approx(expected, 1e-9)


def test_it_is_pro_where_nothing_saturates():
    rng = np.random.default_rng(3)
    maps = rng.normal(size=(4, 20, 20)).astype(np.float32)
    masks = np.zeros((4, 20, 20), bool)
    masks[0, 2:6, 3:9] = masks[1, 10:12, 1:18] = True
    regions = [[m] if m.any() else [] for m in masks]
    areas = [[int(m.sum()) for m in own] for own in regions]
    for limit in (0.05, 0.3):
        assert metrics.au_spro(maps, regions, areas, limit=limit) == pytest.approx(
            metrics.aupro(maps, masks, limit=limit), 1e-12
        )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 5, 1000]), st.sampled_from([0.05, 0.3]))
def test_map_by_map(seed, levels, limit):
    """Scores are forgotten on the way, and ties of the lowest that is kept are not."""
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, levels, (30, 5, 7)).astype(rng.choice(["f4", "i4"]))
    regions = [[rng.random((5, 7)) < 0.3] if i % 3 == 2 else [] for i in range(30)]
    for own in regions:
        for region in own:
            region[0, 0] = True
    areas = [[max(1, int(r.sum()) // 2) for r in own] for own in regions]
    overlap = metrics.SaturatedOverlap(pixels=maps.size, limit=limit)
    for image, own, area in zip(maps, regions, areas, strict=True):
        overlap.update(image, own, area)
    expected = area_by_definition(list(maps), regions, areas, limit)
    assert overlap.compute() == pytest.approx(expected, 1e-9)
    assert sum(part.size for part in overlap._normal) <= 2 * (limit * maps.size + 1)


def test_values_of_the_published_evaluation_code():
    # MVTec LOCO AD's evaluation code (version 1.0: image.py, metrics.py, util.py) on these maps:
    # mean of get_spros_per_defect_for_thresholds, get_fp_rates, get_auc_for_max_fpr at all scores.
    rng = np.random.default_rng(2022)
    maps = rng.integers(0, 400, (5, 24, 32)).astype(np.float64)
    regions = [[] for _ in range(5)]
    for image in (1, 2, 4):
        for _ in range(2):
            top, left = rng.integers(0, 16), rng.integers(0, 20)
            region = np.zeros((24, 32), bool)
            region[top : top + 6, left : left + 9] = True
            maps[image][region] += rng.integers(0, 300)
            regions[image].append(region)
    thresholds = iter(THRESHOLDS)
    saturations = []
    for own in regions:
        some = [(int(region.sum()), *next(thresholds)) for region in own]
        saturations.append([metrics.saturation_area(a, s, relative=r) for a, s, r in some])
    for limit, published in PUBLISHED.items():
        found = metrics.au_spro(maps, regions, saturations, limit=limit)
        assert found == pytest.approx(published, abs=1e-12)


THRESHOLDS = ((20, False), (0.3, True), (500, False), (1.0, True), (0.77, True), (54, False))
PUBLISHED = {0.01: 0.8340036802275803, 0.05: 0.8501617435854943, 0.3: 0.9088168379042729,
             1.0: 0.9654047387245561}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [({"regions": [[]]}, "no image has a region"),
     ({"regions": [[np.ones((2, 3))]], "saturations": [[1]]}, "no pixel lies outside"),
     ({"regions": [[np.zeros((2, 3))]], "saturations": [[1]]}, "has no pixel"),
     ({"regions": [[np.eye(2, 3)]], "saturations": [[3]]}, "of a region of 2 pixels"),
     ({"regions": [[np.eye(2, 3)]]}, "1 regions, 0 saturations"),
     ({"regions": []}, "1 maps, regions of 0"),
     ({"limit": 0.0}, "limit")],
)  # fmt: skip
def test_what_has_no_value(change, words):
    arguments = {"maps": np.zeros((1, 2, 3)), "regions": [[]], "saturations": [[]], "limit": 0.05}
    with pytest.raises(ValueError, match=words):
        metrics.au_spro(**arguments | change)


def test_saturation_areas():
    assert metrics.saturation_area(7, 0.5, relative=True) == 3
    assert metrics.saturation_area(7, 0.1, relative=True) == 1
    for area, threshold, relative in ((0, 1, False), (5, 0, False), (5, 1.5, True), (5, -1, True)):
        with pytest.raises(ValueError, match=r"a region has|saturation threshold"):
            metrics.saturation_area(area, threshold, relative=relative)
