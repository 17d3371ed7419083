import hashlib

import numpy as np
import pytest
from PIL import Image

from jaxad.report import figures
from jaxad.report.content import Case, Scale, common_scale


def make_case(height=24, width=40, channels=3, **changes):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    mask = np.zeros((height, width), bool)
    mask[6:12, 5:15] = True
    fields = {
        "path": "test/scratch/000.png",
        "label": 1,
        "defect": "scratch",
        "score": 3.5,
        "decision": True,
        "image": image,
        "reconstruction": 255 - image,
        "heat": rng.uniform(0, 4, (height, width)),
        "mask": mask,
        "predicted": np.roll(mask, 2, axis=1),
    }
    return Case(**fields | changes)


def luminance(rgb):
    return np.asarray(rgb, np.float64) @ [0.2126, 0.7152, 0.0722]


def test_heat_map_ends_are_the_ends_of_the_colour_table():
    table = figures.colour_table()
    heat = np.array([[-9.0, 1.0, 2.0, 3.0, 99.0, np.inf, -np.inf, np.nan]])
    drawn = figures.heat_map(heat, low=1.0, high=3.0)[0]
    assert drawn.dtype == np.uint8
    for position in (0, 1, 6):
        assert (drawn[position] == table[0]).all()
    for position in (3, 4, 5):
        assert (drawn[position] == table[255]).all()
    assert (drawn[2] == table[128]).all()
    assert (drawn[7] == figures.UNKNOWN_COLOUR).all()


def test_the_colour_table_is_inferno():
    table = figures.colour_table()
    # Some of the published values (bids.github.io/colormap, "option B"), every 64th and the last.
    published = [
        [0.001462, 0.000466, 0.013866],
        [0.341500, 0.062325, 0.429425],
        [0.735683, 0.215906, 0.330245],
        [0.978422, 0.557937, 0.034931],
        [0.988362, 0.998364, 0.644924],
    ]
    np.testing.assert_array_equal(
        table[[0, 64, 128, 192, 255]], np.floor(255 * np.array(published))
    )
    # All 256 as matplotlib 3.11.2 gave them: colormaps["inferno"](arange(256), bytes=True)[:, :3].
    digest = "8092f65256023cefa85fe1136f4f398a2a9f35e9fdf414176b33cce639c44318"
    assert hashlib.sha256(table.tobytes()).hexdigest() == digest
    assert table.shape == (256, 3) and not table.flags.writeable


def test_colours_grow_lighter_with_the_value():
    # Perceptual order; rounding to 8 bits may cost one level per channel.
    assert (np.diff(luminance(figures.colour_table())) > -1.0).all()
    assert luminance(figures.colour_table()[0]) < 5 < 200 < luminance(figures.colour_table()[255])


def test_a_scale_without_extent_does_not_divide_by_zero():
    drawn = figures.heat_map(np.array([[2.0, 2.0001]]), low=2.0, high=2.0)[0]
    assert (drawn == figures.colour_table()[[0, 255]]).all()


def test_the_same_value_has_the_same_colour_on_every_image():
    calm, wild = make_case(heat=np.full((24, 40), 1.5)), make_case()
    wild.heat[3, 7] = 1.5
    scale = Scale(0.0, 4.0)
    pictures = [
        figures.heat_map(case.heat, low=scale.low, high=scale.high) for case in (calm, wild)
    ]
    assert (pictures[0][3, 7] == pictures[1][3, 7]).all()
    # A good image far below the top of the scale must not be stretched to glow.
    assert luminance(pictures[0]).max() < luminance(figures.colour_table()[110])


def test_overlay_mixes_luminance_and_colour():
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, 1] = (255, 0, 0)
    heat = np.array([[0.0, 1.0]])
    drawn = figures.overlay(image, heat, low=0.0, high=1.0, alpha=0.25)
    table = figures.colour_table().astype(float)
    np.testing.assert_array_equal(drawn[0, 0], image[0, 0])
    np.testing.assert_array_equal(drawn[0, 1], np.rint(0.75 * 0.299 * 255 + 0.25 * table[255]))
    only_map = figures.overlay(image, heat + 0.5, low=0.0, high=1.0, alpha=1.0)
    np.testing.assert_array_equal(only_map, figures.heat_map(heat + 0.5, low=0.0, high=1.0))


def test_the_photograph_stays_as_bright_as_it_was_where_the_map_is_low():
    heat = np.array([[-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 9.0, np.nan]])
    seen = figures.opacity(heat, low=0.0, high=1.0)
    np.testing.assert_allclose(seen, [[0, 0, 0.5, 1, 1, 1, 1, 1]])
    white = np.full((1, 8, 3), 255, np.uint8)
    drawn = figures.overlay(white, heat, low=0.0, high=1.0)
    assert (drawn[0, :2] == 255).all()
    # Under the brightest part, the photograph is still seen, and alters the colour little.
    black = figures.overlay(np.zeros((1, 8, 3), np.uint8), heat, low=0.0, high=1.0)
    difference = drawn[0, 6].astype(int) - black[0, 6]
    assert (difference > 50).all() and (difference < 80).all()
    flat = figures.opacity(np.array([[1.0, 2.0]]), low=1.0, high=1.0)
    np.testing.assert_array_equal(flat, [[0.0, 1.0]])


def test_the_top_of_the_scale_is_bright_yellow_over_a_black_gap_too():
    heat = np.linspace(0.5, 1.0, 11)[None]
    black = figures.overlay(np.zeros((1, 11, 1), np.uint8), heat, low=0.0, high=1.0)
    red, green, blue = black[0, -1].astype(int)
    assert min(red, green) > 180 and blue < 140
    assert (np.diff(luminance(black)[0]) > 0).all()  # the hottest is the brightest


def test_the_legend_is_what_lies_over_a_photograph():
    red, green, blue, opacity = figures.legend(17).T
    np.testing.assert_array_equal(np.stack([red, green, blue], 1)[-1], figures.colour_table()[-1])
    assert (
        opacity[0] == 0
        and (opacity[8:] == 255).all()
        and (np.diff(opacity[:9].astype(int)) > 0).all()
    )


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_outline_is_what_lies_within_its_width_of_the_outside(width, channels):
    case = make_case(channels=channels)
    mask = case.mask.copy()
    mask[0:4, 30:40] = True  # touches the border, which closes the contour
    inner = mask
    for _ in range(width):
        # A pixel is inside where its four neighbours are; outside the image nothing is.
        ring = np.pad(inner, 1)
        inner = inner & ring[:-2, 1:-1] & ring[2:, 1:-1] & ring[1:-1, :-2] & ring[1:-1, 2:]
    drawn = figures.outline(case.image, mask, colour=(1, 2, 3), width=width)
    edge = mask & ~inner
    assert edge.any()
    assert (drawn[edge] == (1, 2, 3)).all()
    assert (drawn[~edge] == np.broadcast_to(case.image, drawn.shape)[~edge]).all()


def test_an_empty_mask_draws_nothing():
    case = make_case()
    drawn = figures.outline(case.image, np.zeros((24, 40), bool))
    np.testing.assert_array_equal(drawn, case.image)


def test_small_arrays_grow_by_whole_pixels():
    array = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    grown = figures.fit(array, side=11, smooth=True)
    assert grown.shape == (6, 8, 1)
    np.testing.assert_array_equal(grown[::2, ::2], array)
    np.testing.assert_array_equal(grown[1::2, 1::2], array)


def test_large_arrays_shrink_and_no_defect_vanishes():
    mask = np.zeros((100, 300), bool)
    mask[50, 120] = True
    small = figures.fit(mask, side=60, smooth=False)
    assert small.shape == (20, 60) and small.dtype == bool
    assert small[10, 24] and small.sum() == 1
    heat = np.arange(100 * 300, dtype=np.float64).reshape(100, 300)
    blocks = heat.reshape(20, 5, 60, 5).mean((1, 3))
    # Pillow works in float32: relative error 1e-7 on values up to 3e4.
    np.testing.assert_allclose(figures.fit(heat, side=60, smooth=False), blocks, rtol=1e-6)
    assert figures.fit(np.zeros((100, 300, 1), np.uint8), side=60, smooth=True).shape == (20, 60, 1)


def test_panels_show_the_pixels_of_the_case():
    case = make_case()
    scale = Scale(0.0, 4.0, 2.0)
    photograph, rebuilt, heat, truth, predicted = figures.panels(case, scale, side=40)
    np.testing.assert_array_equal(photograph.pixels, case.image)
    np.testing.assert_array_equal(rebuilt.pixels, case.reconstruction)
    np.testing.assert_array_equal(
        heat.pixels, figures.overlay(case.image, case.heat, low=0.0, high=4.0)
    )
    assert (truth.pixels[6, 5:15] == figures.TRUTH_COLOUR).all()
    assert (truth.pixels[8, 8] == case.image[8, 8]).all()
    assert (predicted.pixels[6, 7:17] == figures.PREDICTED_COLOUR).all()


def test_panels_say_why_something_is_missing():
    case = make_case(mask=None, predicted=None, reconstruction=None)
    whys = [panel.why for panel in figures.panels(case, Scale(0.0, 1.0))]
    assert whys == ["", "none from this method", "", "no mask", "no threshold"]
    good = make_case(mask=None, label=0, predicted=np.zeros((24, 40), bool))
    whys = [panel.why for panel in figures.panels(good, Scale(0.0, 1.0))]
    assert whys == ["", "", "", "good: no defect", "nothing over the threshold"]


@pytest.mark.parametrize("shape", [(24, 40, 1), (40, 24, 3), (600, 150, 1), (1, 1, 3)])
@pytest.mark.parametrize("bare", [False, True])
def test_panel_strip_holds_five_panels_and_the_scale(shape, bare):
    height, width, channels = shape
    changes = {"mask": None, "predicted": None, "decision": None} if bare else {}
    if not bare:
        changes = {"mask": np.ones(shape[:2], bool), "predicted": np.ones(shape[:2], bool)}
    image = np.full(shape, 90, np.uint8)
    changes |= {"image": image, "reconstruction": image, "heat": np.ones(shape[:2])}
    case = make_case(height, width, channels, **changes)
    strip = figures.panel_strip(case, Scale(0.0, 1.0, 0.5))
    assert isinstance(strip, Image.Image) and strip.mode == "RGB"
    pixels = np.asarray(strip)
    assert (pixels == 90).all(axis=2).sum() > 2 * 30 * 120  # two plain panels
    # The bar shows the scale's ends as they lie over a photograph of middle brightness.
    gray = np.full((1, 2, 1), 128, np.uint8)
    for end in figures.overlay(gray, np.array([[0.0, 1.0]]), low=0.0, high=1.0)[0]:
        assert (pixels == end).all(axis=2).any()


def test_a_long_path_keeps_its_end_inside_the_strip():
    case = make_case(path="/".join(["folder"] * 80) + "/scratch/<b>\n007.png")
    short = figures.panel_strip(make_case(), Scale(0.0, 1.0))
    assert figures.panel_strip(case, Scale(0.0, 1.0)).size == short.size


@pytest.mark.parametrize(
    "changes",
    [
        {"heat": np.zeros((5, 5))},
        {"mask": np.zeros((5, 5), bool)},
        {"reconstruction": np.zeros((24, 40, 3))},
        {"image": np.zeros((24, 40, 3))},
        {"image": np.zeros((24, 40), np.uint8)},
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_arrays_that_do_not_fit_are_refused_by_name(changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"scratch/000.png: {name} "):
        make_case(**changes)


def test_common_scale_prefers_the_calibration():
    calibration = {"heat_map_low": 1, "heat_map_high": 2, "pixel_threshold": 1.5}
    assert common_scale(calibration, [make_case()]) == Scale(1.0, 2.0, 1.5)
    uncalibrated = {"heat_map_low": None, "heat_map_high": None, "pixel_threshold": None}
    cases = [make_case(heat=np.full((24, 40), value)) for value in (0.0, 8.0)]
    assert common_scale(uncalibrated, cases) == Scale(0.0, 8.0, None)
    assert common_scale({}, []) == Scale(0.0, 1.0, None)
