"""The pages in a real browser: what their script does, what it leaves alone, and what never runs.

Chromium and its driver are found where Debian or the PATH have them; without them, or without
selenium, the tests skip themselves. They are slow: `make test-all` runs them.
"""

import pathlib
import shutil

import numpy as np
import pytest
from report_pages import (
    CALIBRATION,
    NASTY,
    make_cases,
    make_content,
    make_predictions,
    make_shown,
)

from jaxad.report import figures, html
from jaxad.report.content import Case, ScoreRow
from jaxad.report.predictions import render_predictions

pytestmark = pytest.mark.slow

HOSTILE = [
    NASTY,
    "<img src=x onerror=alert(1)>.png",
    "</script><script>window.ran=1</script>.png",
    '" onmouseover="window.ran=1" x=".png',
    "javascript:window.ran=1",
    "</title><svg onload=window.ran=1>.png",
    "{{7*7}}${7*7}<!--.png",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium with chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("profile")
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--force-prefers-reduced-motion",
        "--window-size=1300,900",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield Browser(session)
    session.quit()


SHOWN = "[...document.querySelectorAll(arguments[0])].filter((one) => one.getClientRects().length)"


class Browser:
    """A thin hand on selenium: selectors in, texts and attributes out."""

    def __init__(self, session):
        self.session = session

    def open(self, path, text=None):
        if text is not None:
            path.write_text(text, encoding="utf-8")
        self.session.get(pathlib.Path(path).as_uri())
        return self

    def all(self, selector):
        return self.session.find_elements("css selector", selector)

    def shown(self, selector):
        # In one call: to ask for each element takes seconds on a busy machine.
        return self.script(f"return {SHOWN}", selector)

    def one(self, selector):
        return self.session.find_element("css selector", selector)

    def script(self, code, *arguments):
        return self.session.execute_script(code, *arguments)

    def click(self, selector):
        """Where nothing that stays in sight covers it."""
        element = self.shown(selector)[0]
        self.script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def keys(self, *keys):
        from selenium.webdriver import ActionChains

        ActionChains(self.session).send_keys(*keys).perform()

    def key(self, name):
        from selenium.webdriver import Keys

        return getattr(Keys, name)

    def cards(self):
        """Numbers of the cards that are to be seen, in order."""
        numbers = f"return {SHOWN}.map((card) => Number(card.id.slice(5)))"
        return self.script(numbers, "#gallery .case")

    def slide(self, score):
        """Moves the slider to the step that is nearest to a score, as input of a user does."""
        self.script(
            "const steps = JSON.parse(document.querySelector('#data').textContent).steps;"
            "const slider = document.querySelector('#slider');"
            "const far = steps.map((step) => Math.abs(step[0] - arguments[0]));"
            "slider.value = far.indexOf(Math.min(...far));"
            "slider.dispatchEvent(new Event('input'));",
            score,
        )

    def problems(self):
        """What the console holds: errors, and what the policy has stopped."""
        return [line["message"] for line in self.session.get_log("browser")]


@pytest.fixture
def page(browser, tmp_path):
    """The page of sixteen images with the scores 0 to 15, odd ones defective, threshold 3.5."""
    made = [
        Case(**{**vars(case), "defect": ("scratch", "dent")[n % 4 == 1] if case.label else "good"})
        for n, case in enumerate(make_cases())
    ]
    cases = [Case(**{**vars(case), "regions": case.heat > 0.5}) for case in made]
    curves = {"roc": ([0, 0.5, 1], [0, 1, 1]), "pr": ([0, 1], [1, 0.5])}
    text = html.render_report(make_content(cases=cases, curves=curves))
    browser.open(tmp_path / "page.html", text)
    yield browser
    assert browser.problems() == []


def test_the_slider_moves_counts_verdicts_outlines_and_the_operating_point(page):
    assert page.one("[data-share=found]").text == "6 of 8 (75.0 %)"
    before = [one.get_attribute("cx") for one in page.all(".marker")]
    assert not page.one("#tried").is_displayed()
    outcome = lambda: page.one("[data-share=found]").find_element("xpath", "..").text
    assert outcome().startswith("On the test images it rejects 6 of 8")
    # As it is without scripts: what the page says and what its script says agree.
    assert page.one("#case-3 .badge").text == "missed" and not page.shown("#case-3 g.predicted")

    page.slide(2.5)
    assert page.one("[data-share=found]").text == "7 of 8 (87.5 %)"
    assert page.one("[data-share='false alarm']").text == "6 of 8 (75.0 %)"
    assert [one.text for one in page.all("[data-count]")] == ["7", "1", "6", "2"]
    assert (
        page.one("#case-3 .badge").text == "found" and len(page.shown("#case-3 g.predicted")) == 2
    )
    assert page.one("#case-2 .badge").text == "passed"
    assert page.one("#value").text == "2.5" and "7 of 8" in page.one("#outcome").text
    assert "--threshold=2.5" in page.one("#tried").text
    # The sentence says whose count it is, and the note on it stands before.
    assert outcome().startswith("On the test images the threshold tried here, 2.5, rejects 7 of 8")
    first, second = (page.one(name).location["y"] for name in ("#tried", "[data-share=found]"))
    assert first < second
    # From (0.75, 0.75) to (0.75, 0.875): to the same place, and up.
    after = page.all(".marker")
    assert after[0].get_attribute("cx") == before[0]
    assert float(after[0].get_attribute("cy")) == pytest.approx(216 - 0.875 * (216 - 14))
    assert float(after[1].get_attribute("cx")) == pytest.approx(54 + 0.875 * (406 - 54))
    line = page.one(".histogram .threshold")
    low, high = (
        float(page.one(".histogram").get_attribute(f"data-{end}")) for end in ("low", "high")
    )
    expected = 54 + (2.5 - low) / (high - low) * (406 - 54)
    assert float(line.get_attribute("x1")) == pytest.approx(expected, abs=0.1)
    # The mistakes follow.
    tiles = [one.get_attribute("href").split("-")[-1] for one in page.shown("[data-live] .tile")]
    assert tiles == ["1", "14", "12", "10", "8", "6", "4"]
    assert page.one("[data-heading=missed]").text == "Missed defects: 1"

    page.one("#reset").click()
    assert page.one("[data-share=found]").text == "6 of 8 (75.0 %)"
    assert not page.one("#reset").is_enabled() and not page.one("#tried").is_displayed()


def test_the_slider_goes_one_image_at_a_time_by_the_arrow_keys(page):
    slider = page.one("#slider")
    found = []
    for key in ("ARROW_LEFT", "ARROW_LEFT", "ARROW_RIGHT", "END", "HOME"):
        slider.send_keys(page.key(key))
        found.append(
            sum(one.text in ("found", "false alarm") for one in page.all(".case .info .badge"))
        )
    assert found == [13, 14, 13, 0, 16]
    assert "defective found" in slider.get_attribute("aria-valuetext")


def test_filters_by_verdict_and_kind_add_up(page):
    assert len(page.cards()) == 16
    page.click("button[data-verdict=missed]")
    assert sorted(page.cards()) == [1, 3]
    page.click("button[data-verdict='false alarm']")
    assert sorted(page.cards()) == [1, 3, 4, 6, 8, 10, 12, 14]
    assert "8 of 16" in page.one("#count").text
    page.script(
        "const kind = document.querySelector('#kind');"
        "kind.value = [...kind.options].find((one) => one.textContent === 'scratch').value;"
        "kind.dispatchEvent(new Event('change'));"
    )
    assert page.cards() == [3]
    headings = [one.text for one in page.shown("#gallery h3")]
    assert len(headings) == 1 and headings[0].startswith("scratch")
    # What a filter shows follows the threshold.
    page.slide(2.5)
    assert page.cards() == []
    # A tile leads to its card, which a filter would hide.
    page.click(".tile")
    assert len(page.cards()) == 16 and page.one("#case-1").is_displayed()


@pytest.mark.parametrize(
    ("way", "key"),
    [("down", lambda score: -score), ("up", float), ("near", lambda score: abs(score - 3.5))],
)
def test_the_cards_are_sorted_by_score(page, way, key):
    first = page.cards()
    choose = "const order = document.querySelector('#order'); order.value = arguments[0];"
    choose += "order.dispatchEvent(new Event('change'));"
    page.script(choose, way)
    assert [key(n) for n in page.cards()] == sorted(map(key, range(16)))
    assert page.cards() != first and not page.shown("#gallery h3")
    page.script(choose, "")
    assert page.cards() == first and len(page.shown("#gallery h3")) == 3


def test_the_map_becomes_more_or_less_opaque(page):
    opacity = lambda: float(
        page.script("return getComputedStyle(document.querySelector('.map')).opacity")
    )
    assert opacity() == pytest.approx(figures.MAP_WEIGHT)
    page.one("#opacity").send_keys(page.key("END"))
    assert opacity() == 1.0


def test_a_bar_of_the_histogram_leads_to_its_images(page):
    bars = page.all(".histogram .bin")
    assert len(bars) == 16
    high = next(
        bar
        for bar in bars
        if float(bar.get_attribute("data-low")) <= 15 < float(bar.get_attribute("data-high"))
    )
    page.script("arguments[0].focus()", high)
    page.keys(page.key("ENTER"))
    assert page.cards() == [15]
    assert "defective" in page.one("#bin").text
    page.keys(page.key("ENTER"))  # on the button that undoes it, which has the focus
    assert len(page.cards()) == 16 and not page.one("#bin").is_displayed()


def test_pictures_are_enlarged_and_left_by_keys(page):
    label = page.one("#case-3 [data-panel=h] .zoom")
    page.script("arguments[0].scrollIntoView({block: 'center'})", label)
    label.click()
    size = label.find_element("css selector", ".stack").size
    assert size["width"] > 1000 and size["height"] > 600
    says = [one for one in page.shown(".zoom .says") if one.text]
    assert len(says) == 1 and "missed" in says[0].text and "heat map of 003.png" in says[0].text
    page.keys(page.key("ARROW_RIGHT"))
    checked = page.all(".zoom input:checked")
    assert len(checked) == 1
    assert checked[0].find_element("xpath", "ancestor::article").get_attribute("id") != "case-3"
    page.keys(page.key("ARROW_LEFT"), page.key("ESCAPE"))
    assert page.all(".zoom input:checked") == []


def test_j_and_k_go_from_card_to_card(page):
    focused = lambda: page.script("return document.activeElement.id")
    first, second = page.cards()[:2]
    page.keys("j")
    assert focused() == f"case-{first}"
    page.keys("j")
    assert focused() == f"case-{second}"
    page.keys("k")
    assert focused() == f"case-{first}"


def test_dark_and_light_are_a_button(page):
    paper = lambda: page.script("return getComputedStyle(document.body).backgroundColor")
    before = paper()
    page.one("#theme").click()
    assert paper() != before
    page.one("#theme").click()
    assert paper() == before


def test_words_are_explained_on_focus(page):
    term = page.one(".headline .term")
    tip = term.find_element("css selector", "[role=tooltip]")
    assert not tip.is_displayed()
    page.script("arguments[0].focus()", term)
    assert tip.is_displayed() and "coin toss" in tip.text


def test_the_page_of_a_prediction_moves_too(browser, tmp_path):
    shown = [make_shown(n, float(n)) for n in range(8)]
    text = render_predictions(make_predictions(shown))
    page = browser.open(tmp_path / "page.html", text)
    assert [one.text for one in page.all("[data-count]")] == ["4", "4"]
    assert page.cards() == list(range(7, -1, -1))
    page.slide(5.5)
    assert [one.text for one in page.all("[data-count]")] == ["2", "6"]
    assert page.one("#case-5 .badge").text == "accepted" and not page.shown("#case-5 g.predicted")
    assert page.one("#case-6 .badge").text == "rejected" and page.shown("#case-6 g.predicted")
    page.click("button[data-verdict=rejected]")
    assert page.cards() == [7, 6]
    assert browser.problems() == []


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_that_a_name_holds_runs(browser, tmp_path, name):
    cases = [Case(**{**vars(case), "path": name, "defect": name}) for case in make_cases(14)]
    metrics = {"notes": [name], "primary_map": name, "per_defect": {name: {"image_auroc": 0.5}}}
    content = make_content(title=name, cases=cases, notes=[name], metrics=metrics)
    browser.open(tmp_path / "page.html", html.render_report(content))
    browser.slide(7.5)
    browser.script("document.querySelector('#order').value = 'up'")
    browser.click("#gallery .case")
    assert browser.script("return window.ran") is None
    assert browser.all("script:not(#data)") and len(browser.all("script")) == 2
    assert not browser.all("img[src=x], svg[onload], [onmouseover]")
    assert any(name in one.text for one in browser.all(".path"))
    assert browser.problems() == []


def test_the_policy_stops_what_would_get_in(browser, tmp_path):
    """That the page's own guard works: with the escaping broken, still nothing would run."""
    text = html.render_report(make_content())
    broken = text.replace(
        "</main>", "<img src=x onerror='window.ran=1'><script>window.ran=1</script></main>"
    )
    browser.open(tmp_path / "page.html", broken)
    assert browser.script("return window.ran") is None
    assert any("Content Security Policy" in line for line in browser.problems())


def test_a_page_without_threshold_or_images_has_no_errors(browser, tmp_path):
    for number, changes in enumerate(
        (
            {
                "calibration": {"image_threshold": None, "reason": "why"},
                "cases": make_cases(decided=False),
            },
            {"cases": []},
            {"cases": make_cases(1)},
            {"calibration": CALIBRATION | {"image_threshold": 99.0}},
        )
    ):
        browser.open(tmp_path / f"{number}.html", html.render_report(make_content(**changes)))
        assert browser.problems() == []
    without = browser.open(tmp_path / "0.html")
    assert "no threshold yet" in without.one("#outcome").text
    without.slide(7.5)
    assert without.one("#case-15 .badge").text == "found"


def test_ten_thousand_images_answer_at_once(browser, tmp_path):
    rng = np.random.default_rng(0)
    scores = [
        ScoreRow(f"{n}.png", n % 2, "scratch" if n % 2 else "good", rng.random() * 15, True)
        for n in range(10_000)
    ]
    text = html.render_report(make_content(scores=scores))
    browser.open(tmp_path / "page.html", text)
    browser.slide(7.5)
    step = browser.script(
        "const data = JSON.parse(document.querySelector('#data').textContent);"
        "return data.steps[document.querySelector('#slider').value]"
    )
    good, bad = (
        sum(row.score > step[0] for row in scores if row.label == label) for label in (0, 1)
    )
    assert [good, bad] == step[1:]
    assert browser.one("[data-share=found]").text.startswith(f"{bad} of 5000")
    assert browser.problems() == []


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_overflows_sideways_and_words_have_contrast(browser, tmp_path, width, theme):
    long = "a-very-long-name-of-a-part-" * 8 + ".png"
    cases = [Case(**{**vars(case), "path": f"test/{long}"}) for case in make_cases()]
    text = html.render_report(make_content(cases=cases)).replace(
        "<html", f'<html data-theme="{theme}"'
    )
    browser.session.set_window_size(width, 900)
    try:
        browser.open(tmp_path / "page.html", text)
        wide, seen = browser.script(
            "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= seen
        for selector in (
            "p",
            ".muted",
            ".badge.found",
            ".badge.missed",
            ".badge.false-alarm",
            "nav a",
            ".note",
        ):
            for element in browser.shown(selector)[:1]:
                ink, paper = browser.script(COLOURS, element)
                assert contrast(ink, paper) >= 4.5, (selector, ink, paper)  # WCAG 2.2, level AA
    finally:
        browser.session.set_window_size(1300, 900)


COLOURS = """
let behind = arguments[0];
const paper = () => getComputedStyle(behind).backgroundColor;
while (behind.parentElement && paper() === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
return [getComputedStyle(arguments[0]).color, paper()].map((one) => one.match(/[\\d.]+/g).map(Number));
"""


def contrast(ink, paper):
    """The ratio of WCAG 2.2, "contrast ratio" and "relative luminance"."""

    def luminance(rgb):
        unit = np.array(rgb[:3]) / 255
        linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    high, low = sorted((luminance(ink), luminance(paper)), reverse=True)
    return (high + 0.05) / (low + 0.05)
