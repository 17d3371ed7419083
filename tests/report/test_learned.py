import numpy as np

from jaxad.report import learned
from jaxad.report.content import Learned, ReportContent
from jaxad.report.html import render_report

IMAGES = np.full((3, 8, 8, 3), 100, np.uint8)


def make(**options):
    return Learned(
        origin="good <test> images", images=IMAGES, reconstructions=IMAGES - 10, **options
    )


def bodies(**options):
    return {anchor: body for anchor, _, body in learned.sections(make(**options))}


def test_without_anything_learned_there_are_no_sections():
    assert learned.sections(None) == []
    page = render_report(ReportContent(title="run", metrics={}))
    assert "Reconstructions" not in page and 'id="samples"' not in page


def test_reconstructions_are_paired_with_their_difference():
    body = bodies()["reconstructions"]
    assert body.count('class="tile"') == 3 and body.count("<img") == 6
    assert body.count("differs by 10.0") == 3 and "3 good &lt;test&gt; images" in body


def test_the_similarity_stands_beside_the_difference():
    assert "SSIM" not in bodies()["reconstructions"]
    body = bodies(similarity=np.float32([0.5, 0.75, 1.0]))["reconstructions"]
    assert "is 0.750 on average (dm-pix" in body
    assert "differs by 10.0, SSIM 0.500" in body and "differs by 10.0, SSIM 1.000" in body


def test_samples_stand_beside_training_photographs():
    rest = bodies()
    assert rest["samples"] == "" and rest["inside"] == ""
    body = bodies(samples=IMAGES, photographs=IMAGES[:2])["samples"]
    assert "3 images drawn" in body and body.count("<img") == 5
    assert "Good training images</h3>" in body


def test_samples_of_patches_are_called_so_and_may_stand_alone():
    small = IMAGES[:, :4, :5]
    body = bodies(samples=small, photographs=small)["samples"]
    assert "patches of 4 × 5 pixels" in body and "Good training images, their middle" in body
    assert "Good training images" not in bodies(samples=small)["samples"]


def test_notes_stand_on_the_page_even_where_there_is_nothing_else():
    page = render_report(
        ReportContent(title="run", metrics={}, learned=make(notes=["No samples: <why>."]))
    )
    assert '<p class="note">No samples: &lt;why&gt;.</p>' in page
    assert page.index('id="reconstructions"') < page.index('id="inside"')
    assert "Measured" not in page
