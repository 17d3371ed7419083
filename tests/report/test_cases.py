import numpy as np

from jaxad.report.cases import load_cases, save_cases
from jaxad.report.content import Case


def test_cases_survive_the_disk(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (5, 7, 3), np.uint8)
    full = Case(
        path="test/hole/1.png",
        label=1,
        defect="hole",
        score=0.25,
        decision=True,
        image=image,
        reconstruction=image[::-1],
        heat=rng.random((5, 7), np.float32),
        mask=image[..., 0] > 99,
        predicted=image[..., 1] > 99,
    )
    bare = Case(path="a.png", label=0, defect="good", score=-1.5, image=image, heat=full.heat)
    save_cases(tmp_path / "cases.npz", [full, bare])
    first, second = load_cases(tmp_path / "cases.npz")
    for name in ("image", "reconstruction", "heat", "mask", "predicted"):
        np.testing.assert_array_equal(getattr(first, name), getattr(full, name))
    assert (first.path, first.defect, first.score) == ("test/hole/1.png", "hole", 0.25)
    assert first.decision is True and first.label == 1
    assert second.mask is None and second.decision is None and second.reconstruction is None


def test_no_file_is_no_case(tmp_path):
    assert load_cases(tmp_path / "none.npz") == []
