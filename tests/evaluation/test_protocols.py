"""Protocols against write-ups of the public codes with Pillow, SciPy and scikit-learn."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn import metrics as sk

from jaxad import metrics
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.evaluate import evaluate
from jaxad.evaluation.protocols.apply import min_max, protocol_metrics
from jaxad.evaluation.protocols.masks import MASK_RESIZINGS
from jaxad.evaluation.protocols.rules import (
    IMAGE_METRICS,
    METRICS,
    PER_IMAGE_METRICS,
    PROTOCOLS,
    get_protocol,
)
from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder

SIZE, ORIGINAL = (24, 32), (48, 64)
LABELS = [0, 0, 0, 1, 1, 1, 1, 1]
KINDS = ["good", "good", "good", "cut", "cut", "hole", "hole", "hole"]


@pytest.fixture(scope="module")
def scene():
    """Maps and masks of eight images; image 3 has gray beside white, image 7 two components."""
    rng = np.random.default_rng(1)
    masks = [np.zeros(ORIGINAL, np.uint8) for _ in LABELS]
    boxes = [(5, 17, 6, 21), (20, 41, 30, 57), (2, 9, 40, 60), (30, 33, 3, 33), (10, 20, 10, 20)]
    for mask, (top, bottom, left, right) in zip(masks[3:], boxes, strict=True):
        mask[top:bottom, left:right] = 255
    masks[3][30:44, 10:40] = 128
    masks[7][33:46, 41:62] = 255
    maps = {}
    for name, scale in (("mad", 7.0), ("ssim", 0.3)):
        noise = rng.gamma(2.0, size=(len(masks), *SIZE))
        small = np.stack([np.asarray(Image.fromarray(m).resize(SIZE[::-1])) for m in masks])
        offset = rng.uniform(1, 4, (len(masks), 1, 1))  # images differ in level, as real maps do
        maps[name] = (scale * (noise + offset + 1.2 * (small / 255.0))).astype(np.float32)
    maps["mad*ssim"] = maps["mad"] * maps["ssim"]
    return maps, masks


def apply(name, scene, map_name="mad*ssim", **options):
    maps, masks = scene
    keys = {"labels": LABELS, "kinds": KINDS, "map_name": map_name} | options
    return protocol_metrics(PROTOCOLS[name], maps, masks, **keys)


def published_area(maps, mask, map_name):
    """One image as the public code of paper and tables treats it; None where it is skipped."""
    picture = Image.fromarray(mask).resize(SIZE[::-1], Image.Resampling.BILINEAR)
    truth = np.asarray(picture).astype(np.float32) / np.float32(255)
    with np.errstate(invalid="ignore"):
        one = lambda m: (m - np.amin(m)) / (np.amax(m) - np.amin(m))
        truth = one(truth)
        if map_name == "mad*ssim":
            prediction = one(one(maps["mad"]) * one(maps["ssim"]))
        else:
            prediction = one(maps[map_name])
    if np.isnan(truth).any() or np.isnan(prediction).any():
        return None
    truth = truth.astype(np.int8).ravel()
    return sk.roc_auc_score(truth, prediction.ravel()) if len(set(truth)) == 2 else None


@pytest.mark.parametrize("map_name", ["mad", "ssim", "mad*ssim"])
def test_per_image_areas_are_those_of_the_public_code(scene, map_name):
    maps, masks = scene
    areas = {
        i: published_area({k: v[i] for k, v in maps.items()}, masks[i], map_name)
        for i in range(3, 8)
    }
    found = apply("vae_compare", scene, map_name)
    # The code works in float32, here it is float64: a tie more or less of 768 pixels.
    assert found.values["pixel_auroc_per_image_mean"] == pytest.approx(
        np.mean(list(areas.values())), abs=1e-6
    )
    assert found.values["pixel_auroc_per_image_std"] == pytest.approx(
        np.std(list(areas.values())), abs=1e-6
    )
    assert found.counts == {
        "images": 5,
        "images_without_mask": 0,
        "images_with_constant_map": 0,
        "images_of_one_class": 0,
        "images_in_per_image_figures": 5,
    }
    assert not found.undefined

    found = apply("vae_grf_2024", scene, map_name)
    cut, hole = np.mean([areas[3], areas[4]]), np.mean([areas[i] for i in (5, 6, 7)])
    assert found.values["per_defect"] == pytest.approx({"cut": cut, "hole": hole}, abs=1e-6)
    mean = found.values["pixel_auroc_mean_over_kinds"]
    assert mean == pytest.approx((cut + hole) / 2, abs=1e-6)
    # Kinds of different numbers of images: this is not the mean over images.
    assert abs(mean - np.mean(list(areas.values()))) > 1e-4


def test_the_min_max_of_the_factors_changes_the_ranking_of_their_product():
    """In a raw product an offset of one factor scales the other; min-max takes it away."""
    # Pixels (a, b): the defect (2, 3) against (3, 2.5); raw 6 < 7.5, min-max 0.5 > 0.25.
    maps = {"a": np.array([[[2.0, 3.0, 1.0, 1.0]]]), "b": np.array([[[3.0, 2.25, 2.0, 2.0]]])}
    maps["a*b"] = maps["a"] * maps["b"]
    masks = [np.array([[255, 0, 0, 0]], np.uint8)]
    given = {"labels": [1], "kinds": ["spot"], "map_name": "a*b"}
    assert metrics.auroc(masks[0].ravel() > 0, maps["a*b"].ravel()) == pytest.approx(2 / 3)
    found = protocol_metrics(PROTOCOLS["vae_compare"], maps, masks, **given)
    assert found.values["pixel_auroc_per_image_mean"] == 1.0
    raw = protocol_metrics(PROTOCOLS["vqvae"], maps, masks, **given)
    assert raw.values["pixel_auroc_per_image_mean"] == pytest.approx(2 / 3)


def test_what_is_skipped_is_counted_and_told(scene):
    maps, masks = {k: v.copy() for k, v in scene[0].items()}, list(scene[1])
    maps["mad"][3] = 5.0  # constant: no min-max
    masks[4] = None
    masks[5] = np.zeros(ORIGINAL, np.uint8)  # a defective image, nothing marked
    masks[6] = np.full(ORIGINAL, 255, np.uint8)  # and one marked all over
    found = apply("vae_compare", (maps, masks))
    assert found.counts == {
        "images": 5,
        "images_without_mask": 1,
        "images_with_constant_map": 1,
        "images_of_one_class": 2,
        "images_in_per_image_figures": 1,
    }
    left = published_area({k: v[7] for k, v in maps.items()}, masks[7], "mad*ssim")
    assert found.values["pixel_auroc_per_image_mean"] == pytest.approx(left, abs=1e-6)
    assert found.values["pixel_auroc_per_image_std"] == 0.0
    for i in (3, 5, 6):
        assert published_area({k: v[i] for k, v in maps.items()}, masks[i], "mad*ssim") is None
    # The other factor alone varies in image 3, which then counts.
    assert apply("vae_compare", (maps, masks), "ssim").counts["images_with_constant_map"] == 0

    found = apply("vae_grf_2024", (maps, masks))
    assert found.values["per_defect"]["cut"] is None
    assert "no image of this kind" in found.undefined["per_defect.cut"]
    assert found.values["pixel_auroc_mean_over_kinds"] == pytest.approx(left, abs=1e-6)

    # A constant raw map is no reason to leave an image out: its area is one half.
    raw = apply("vqvae", (maps, masks), "mad")
    assert raw.counts["images_with_constant_map"] == 0
    assert raw.counts["images_in_per_image_figures"] == 2


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"masks": [None] * 8}, "no anomalous image has a mask"),
        ({"labels": [0] * 8, "masks": [np.zeros(ORIGINAL, np.uint8)] * 8}, "no image is anomalous"),
        ({"masks": [np.zeros(ORIGINAL, np.uint8)] * 8}, "no"),
    ],
)
@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "mae"])
def test_nothing_is_made_up_where_there_is_nothing_to_judge(scene, name, change, reason):
    change = dict(change)
    masks = change.pop("masks")
    found = apply(name, (scene[0], masks), **change)
    for figure, value in found.values.items():
        if figure in IMAGE_METRICS or figure == "per_defect":
            continue
        assert value is None and reason in found.undefined[figure], figure
    assert None not in found.undefined.values()


def test_a_product_without_its_factors_is_undefined(scene):
    maps = {"mad*ssim": scene[0]["mad*ssim"], "ssim": scene[0]["ssim"]}
    found = apply("vae_compare", (maps, scene[1]))
    assert set(found.values.values()) == {None}
    assert all("made of mad, which" in why for why in found.undefined.values())
    assert apply("vt_adl", (maps, scene[1])).values["aupro"] is not None


def test_the_released_pro_is_the_pooled_area(scene):
    maps, masks = scene
    truth = [
        np.asarray(Image.fromarray(m).resize(SIZE[::-1], Image.Resampling.BILINEAR)) / 255.0 > 0
        for m in masks
    ]
    own = np.random.default_rng(3).permutation(8).astype(np.float32)
    found = apply("vt_adl", scene, "mad", own_scores=own)
    assert [*found.values] == [*PROTOCOLS["vt_adl"].metrics]
    pooled = sk.roc_auc_score(np.ravel(truth), np.ravel(maps["mad"]))
    assert found.values["pro_as_released"] == pytest.approx(pooled, abs=1e-12)
    assert found.values["aupro"] == metrics.aupro(maps["mad"], truth)
    precision, recall, _ = sk.precision_recall_curve(LABELS, own)
    area = sk.auc(recall, precision)
    assert found.values["image_pr_auc_trapezoid"] == pytest.approx(area, abs=1e-12)
    assert found.values["image_auroc"] == pytest.approx(sk.roc_auc_score(LABELS, own), abs=1e-12)
    # Without a score of its own the maximum decides.
    highest = apply("vt_adl", scene, "mad").values["image_auroc"]
    by_max = sk.roc_auc_score(LABELS, maps["mad"].max(axis=(1, 2)))
    assert highest == pytest.approx(by_max, abs=1e-12)


def test_image_scores_and_pooled_areas_of_the_other_papers(scene):
    maps, masks = scene
    values = maps["ssim"]
    by_max = sk.roc_auc_score(LABELS, values.max(axis=(1, 2)))
    by_mean = sk.roc_auc_score(LABELS, values.astype(np.float64).mean(axis=(1, 2)))
    assert by_max != by_mean
    nearest = [np.asarray(Image.fromarray(m).resize(SIZE[::-1], 0)) > 0 for m in masks]
    own = np.arange(8.0)[::-1]
    for name, score in (("vqvae", by_mean), ("mae", by_mean), ("vit_memory", 0.0)):
        found = apply(name, scene, "ssim", own_scores=own)
        assert found.values["image_auroc"] == pytest.approx(score, abs=1e-12), name
        if name != "mae":
            pooled = sk.roc_auc_score(np.ravel(nearest), values.ravel())
            assert found.values["pixel_auroc"] == pytest.approx(pooled, abs=1e-12), name
    assert [*apply("mae", scene, "ssim").values] == ["image_auroc"]
    # AnoViT: bilinear between four pixels; the factor 2 between the sizes makes it their mean.
    truth = [m.reshape(24, 2, 32, 2).mean(axis=(1, 3)) >= 0.5 for m in masks]
    pooled = sk.roc_auc_score(np.ravel(truth), values.ravel())
    found = apply("anovit", scene, "ssim")
    assert found.values["pixel_auroc"] == pytest.approx(pooled, abs=1e-12)
    assert found.values["image_auroc"] == pytest.approx(by_max, abs=1e-12)


def official_aupro(maps, masks, limit=0.3):
    """All thresholds one by one: mean coverage of 8-connected regions over false positives."""
    regions = [ndimage.label(m, np.ones((3, 3))) for m in masks]
    points = [(0.0, 0.0)]
    normal = sum((m == 0).sum() for m in masks)
    for t in np.unique(maps)[::-1]:
        covered, alarms = [], 0
        for heat, mask, (labels, count) in zip(maps, masks, regions, strict=True):
            over = heat >= t
            alarms += (over & (mask == 0)).sum()
            covered += [over[labels == k].mean() for k in range(1, count + 1)]
        points.append((alarms / normal, np.mean(covered)))
    x, y = np.array(points).T
    inside = x <= limit
    y_end = np.interp(limit, x, y)
    return np.trapezoid([*y[inside], y_end], [*x[inside], limit]) / limit


def test_the_official_figures_at_original_resolution():
    rng = np.random.default_rng(5)
    masks = [np.zeros((9, 12), np.uint8) for _ in range(4)]
    masks[2][1:4, 1:4] = 255
    masks[2][4, 4] = 255  # touches at a corner: one component
    masks[2][6:9, 8:12] = 1
    small = [rng.normal(size=(3, 4)).round(1).astype(np.float32) for _ in masks]
    # Image 3 lies in a folder of defects but its mask marks nothing: good, by the official label.
    found = protocol_metrics(
        PROTOCOLS["mvtec_official"],
        {"heat": small},
        masks,
        labels=[0, 0, 1, 1],
        kinds=["good", "good", "cut", "cut"],
        map_name="heat",
        own_scores=[4.0, 3.0, 2.0, 1.0],
    )
    large = [
        np.asarray(Image.fromarray(m).resize((12, 9), Image.Resampling.BILINEAR)) for m in small
    ]
    assert found.values["aupro"] == pytest.approx(official_aupro(large, masks), abs=1e-9)
    scores = [m.max() for m in large]
    assert found.values["image_auroc"] == pytest.approx(
        sk.roc_auc_score([0, 0, 1, 0], scores), abs=1e-12
    )


def test_a_min_max_step_keeps_every_order():
    rng = np.random.default_rng(0)
    values = np.concatenate([[1e-8, 3e7], rng.uniform(0, 1, 500)]).astype(np.float32)[None]
    normal = min_max(values)
    assert normal.min() == 0.0 and normal.max() == 1.0
    np.testing.assert_array_equal(np.argsort(values[0]), np.argsort(normal[0]))
    assert np.unique(normal).size == np.unique(values).size
    assert np.isnan(min_max(np.full((2, 2), 3.0))).all()


def test_the_registry_is_consistent():
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name and get_protocol(name) is protocol
        assert protocol.metrics and set(protocol.metrics) <= METRICS.keys()
        assert protocol.mask_resizing in MASK_RESIZINGS
        if set(protocol.metrics) & IMAGE_METRICS.keys():
            assert protocol.image_score is not None and protocol.images == "all"
        # Scales of single images must not be pooled.
        assert protocol.fusion == "raw" or set(protocol.metrics) <= PER_IMAGE_METRICS.keys()
    assert len({p.statement for p in PROTOCOLS.values()}) == len(PROTOCOLS)
    with pytest.raises(UserError, match=r"evaluate.protocol is 'vae_compar'.*'vae_compare'"):
        get_protocol("vae_compar")


def test_a_statement_says_what_is_done():
    said = PROTOCOLS["vae_compare"].statement
    for part in ("defective test images alone", "floored", "min-max of the product", "population",
                 "Image score: none is defined", "skipped and counted"):  # fmt: skip
        assert part in said, part
    images_alone = PROTOCOLS["mae"].statement
    assert "Masks" not in images_alone and "mean of the map" in images_alone
    assert "rate of 0.3" in PROTOCOLS["mvtec_official"].statement
    assert "original size" in PROTOCOLS["mvtec_official"].statement
    assert PROTOCOLS["anovit"].departures(smoothing=6.0) == []
    (departure,) = PROTOCOLS["anovit"].departures(smoothing=2.0)
    assert "smoothing is 2" in departure and "6" in departure


def test_a_run_is_evaluated_by_the_protocol_it_names(run, data):
    standard = evaluate(run)
    assert standard["protocol"] == "jaxad"
    assert standard["protocol_figures"] == {
        name: standard[name] for name in PROTOCOLS["jaxad"].metrics
    }
    overrides = {"evaluate.protocol": "vae_compare", "evaluate.smoothing": 0.0}
    result = evaluate(run, overrides=overrides)
    assert result == RunFolder(run).read_json(run / "metrics.json")
    assert result["protocol_statement"] == PROTOCOLS["vae_compare"].statement
    assert result["protocol_departures"] == [] and result["smoothing"] == 0.0
    assert result["protocol_maps"].keys() == result["maps"].keys()
    assert result["protocol_figures"] == result["protocol_maps"][result["primary_map"]]
    assert result["protocol_counts"]["images"] == 4

    detector, areas = Detector.load(run), []
    for i in range(4):
        picture = Image.open(data / "test" / "box" / f"{i:03}.png")
        picture = np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR))
        found = {k: v[0] for k, v in detector(picture[None]).maps.items()}
        mask = Image.open(data / "ground_truth" / "box" / f"{i:03}_mask.png")
        mask = np.asarray(mask.resize((32, 32), Image.Resampling.BILINEAR))
        truth = mask == mask.max()
        fused = min_max(min_max(found["l1"]) * min_max(found["ssim"]))
        areas.append(sk.roc_auc_score(truth.ravel(), fused.ravel()))
    figures = result["protocol_figures"]
    # Batches of one and of four may differ in the last float32 digit.
    assert figures["pixel_auroc_per_image_mean"] == pytest.approx(np.mean(areas), abs=1e-4)
    assert figures["pixel_auroc_per_image_std"] == pytest.approx(np.std(areas), abs=1e-4)
    # Figures outside the protocol are the library's own, whatever the protocol.
    assert evaluate(run, overrides={"evaluate.protocol": "jaxad"})["aupro"] == result["aupro"]


def test_every_protocol_runs_on_a_run(run):
    for name in PROTOCOLS:
        result = evaluate(run, overrides={"evaluate.protocol": name})
        assert result["protocol"] == name
        assert None not in result["protocol_figures"].values(), name
        assert not [key for key in result["undefined"] if key.startswith("protocol")]
        if PROTOCOLS[name].smoothing not in (None, 2.0):
            assert "smoothing" in result["protocol_departures"][0]


def test_without_masks_the_reasons_stand_in_the_run(tiny, tmp_path):
    data = tiny.write_data(tmp_path / "data", masks=False, train=8)
    run = tiny.fit(data, tmp_path / "run", evaluate__protocol="vt_adl")
    result = evaluate(run)
    assert result["protocol_figures"]["pro_as_released"] is None
    reason = result["undefined"]["protocol_figures.pro_as_released"]
    assert reason == result["undefined"]["protocol_maps.ssim.aupro"]
    assert reason == "no anomalous image has a mask"
    assert result["protocol_figures"]["image_auroc"] == 1.0
    assert result["protocol_counts"]["images_without_mask"] == 4


def test_a_run_of_before_there_were_protocols_is_read(run, edited):
    with edited(run / "config.json") as config:
        del config["evaluate"]["protocol"]
    assert evaluate(run)["protocol"] == "jaxad"
    assert evaluate(run, overrides={"evaluate.protocol": "mae"})["protocol"] == "mae"
