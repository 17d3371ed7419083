"""Every published data set in miniature, in its true layout and file formats."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from jaxad.data.datasets import NAMES, list_categories, read_table
from jaxad.data.images import decode
from jaxad.data.masks import read_mask
from jaxad.data.published.catalogue import CATALOGUE, published_categories
from jaxad.data.published.readers import READERS
from jaxad.run.errors import UserError


def save(root, path, *, value=100, size=(6, 8), mode="L", spot=False):
    """Writes an image of one gray; ``spot`` sets some pixels to 255."""
    pixels = np.full(size, value, np.uint8)
    if spot:
        pixels[1:3, 2:5] = 255
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(place)


def counts(table):
    found = Counter((s.split, s.defect) for s in table.samples)
    assert all((s.label == 0) == (s.defect == "good") for s in table.samples)
    return {f"{split}/{kind}": n for (split, kind), n in found.items()}


def has(notes, *words):
    """One note has all the words."""
    return any(all(word in note for word in words) for note in notes)


def test_every_name_has_a_reader_and_numbers():
    assert set(READERS) == set(CATALOGUE)
    assert set(NAMES) == {"auto", "mvtec", "folder", "listing", "shards", *CATALOGUE}
    for published in CATALOGUE.values():
        assert published.needs and published.source and published.licence and published.counts_from
    assert published_categories("elpv") == ("mono", "poly")
    with pytest.raises(UserError, match="did you mean 'mvtec_ad'"):
        published_categories("mvtec_a")


def test_published_numbers_of_mvtec_ad():
    """The sums that the data set's paper states: 3,629 and 1,725 images, 1,258 and 73 defects."""
    each = CATALOGUE["mvtec_ad"].categories.values()
    assert len(each) == 15
    assert sum(c.train["good"] for c in each) == 3629
    assert sum(sum(c.test.values()) for c in each) == 1725
    assert sum(c.test["good"] for c in each) == 467
    assert sum(len(c.test) - 1 for c in each) == 73


def test_published_numbers_agree_with_the_papers_table():
    from jaxad.benchmark.printed import get_table

    for row in get_table("vit_memory_1")["rows"]:
        published = CATALOGUE["mvtec_ad"].categories[row["category"]]
        good = published.test["good"]
        anomalous = sum(published.test.values()) - good
        figures = [published.train["good"], good, anomalous, published.size[0]]
        assert figures == row["values"]
    for name, total in {"mnist": 70_000, "cifar10": 60_000}.items():
        each = CATALOGUE[name].categories.values()
        assert sum(c.train["good"] for c in each) + sum(next(iter(each)).test.values()) == total
    btad = CATALOGUE["btad"].categories.values()
    assert sum(sum([*c.train.values(), *c.test.values()]) for c in btad) == 2540
    assert sum(c.test["ko"] for c in btad) == 290
    assert CATALOGUE["elpv"].categories[""].pool["good"] == 1508
    assert sum(CATALOGUE["elpv"].categories[""].pool.values()) == 2624


class TestMvtecAd:
    @pytest.fixture
    def root(self, tmp_path):
        for i in range(3):
            save(tmp_path, f"toothbrush/train/good/{i:03d}.png", mode="RGB")
        save(tmp_path, "toothbrush/test/good/000.png", mode="RGB")
        for i in range(2):
            save(tmp_path, f"toothbrush/test/defective/{i:03d}.png", mode="RGB")
        save(tmp_path, "toothbrush/ground_truth/defective/000_mask.png", value=0, spot=True)
        for name in ("license.txt", "readme.txt"):
            (tmp_path / "toothbrush" / name).write_text("...")
        save(tmp_path, "wood/train/good/000.png", mode="RGB")
        return tmp_path

    def test_counts_masks_and_what_is_missing(self, root):
        table = read_table(root, name="mvtec_ad", category="toothbrush")
        assert counts(table) == {"train/good": 3, "test/good": 1, "test/defective": 2}
        masks = [s.mask for s in table.test() if s.label]
        assert [mask is not None for mask in masks] == [True, False]
        assert read_mask(masks[0]).sum() == 6
        assert has(table.notes, "train/good: 57 of 60 published images are missing")
        assert has(table.notes, "test/defective: 28 of 30")
        assert has(table.notes, "1 of 2 anomalous test images have no mask", "001.png")
        assert has(table.notes, "6 x 8 pixels", "1024 x 1024")

    def test_a_complete_copy_has_no_notes(self, tmp_path):
        published = CATALOGUE["mvtec_ad"].categories["toothbrush"]
        base = "toothbrush"
        save(tmp_path, f"{base}/first.png", size=published.size)
        image = (tmp_path / base / "first.png").read_bytes()
        (tmp_path / base / "first.png").unlink()
        plan = [("train", published.train), ("test", published.test)]
        for split, kinds in plan:
            for kind, n in kinds.items():
                folder = tmp_path / base / split / kind
                folder.mkdir(parents=True)
                for i in range(n):
                    (folder / f"{i:03d}.png").write_bytes(image)
        masks = tmp_path / base / "ground_truth/defective"
        masks.mkdir(parents=True)
        for i in range(30):
            (masks / f"{i:03d}_mask.png").write_bytes(image)
        assert read_table(tmp_path, name="mvtec_ad", category="toothbrush").notes == ()

    def test_the_categorys_folder_itself(self, root):
        table = read_table(root / "toothbrush", name="mvtec_ad")
        assert (table.name, table.category) == ("mvtec_ad", "toothbrush")
        assert has(table.notes, "57 of 60")

    def test_more_than_published_and_unknown_kinds(self, root):
        save(root, "toothbrush/test/bent/000.png")
        for i in range(13):
            save(root, f"toothbrush/test/good/{i:03d}.png")
        notes = read_table(root, name="mvtec_ad", category="toothbrush").notes
        assert has(notes, "test/bent: 1 images of a kind that is not published")
        assert has(notes, "test/good: 13 images, 1 more than published")

    def test_categories(self, root):
        assert list_categories(root, name="mvtec_ad") == ("toothbrush", "wood")
        with pytest.raises(UserError, match="no category 'zippr'; did you mean 'zipper'"):
            read_table(root, name="mvtec_ad", category="zippr")
        with pytest.raises(UserError, match=r"choose one with data\.category: toothbrush, wood"):
            read_table(root, name="mvtec_ad")
        save(root, "mine/train/good/0.png")
        notes = read_table(root, name="mvtec_ad", category="mine").notes
        assert has(notes, "mine is not a category of MVTec AD")

    def test_another_layout_is_refused(self, tmp_path):
        save(tmp_path, "good/0.png")
        with pytest.raises(UserError, match="is no category of mvtec_ad"):
            read_table(tmp_path, name="mvtec_ad")


def test_miad(tmp_path):
    base = "electrical_insulator"
    for i in range(2):
        save(tmp_path, f"{base}/train/good/{i:06d}.png", mode="RGB")
    save(tmp_path, f"{base}/test/good/000000.png", mode="RGB")
    save(tmp_path, f"{base}/test/broken/000000.png", mode="RGB")
    save(tmp_path, f"{base}/ground_truth/broken/000000.png", value=0, spot=True)
    # Masks of fore- and background, which others ship beside the data, are none of defects.
    save(tmp_path, f"{base}/mask/000000.png")
    table = read_table(tmp_path, name="miad", category=base)
    assert counts(table) == {"train/good": 2, "test/good": 1, "test/broken": 1}
    assert table.test()[0].mask is not None
    assert has(table.notes, "9998 of 10000")
    assert len(published_categories("miad")) == 7


def test_btad_with_png_and_bmp_mixed(tmp_path):
    save(tmp_path, "01/train/ok/0000.bmp", mode="RGB")
    save(tmp_path, "01/train/ok/0001.png", mode="RGB")
    save(tmp_path, "01/test/ok/0000.png", mode="RGB")
    save(tmp_path, "01/test/ko/0000.bmp", mode="RGB")
    save(tmp_path, "01/test/ko/0001.png", mode="RGB")
    save(tmp_path, "01/ground_truth/ko/0000.png", value=0, spot=True)
    save(tmp_path, "01/ground_truth/ko/0001.bmp", value=0, spot=True)
    save(tmp_path, "03/train/ok/0000.bmp", mode="RGB")
    table = read_table(tmp_path, name="btad", category="01")
    assert counts(table) == {"train/good": 2, "test/good": 1, "test/ko": 2}
    assert [read_mask(s.mask).sum() for s in table.test() if s.label] == [6, 6]
    assert has(table.notes, "test/ko: 47 of 49")
    assert not has(table.notes, "no mask")
    assert list_categories(tmp_path, name="btad") == ("01", "03")


def test_ucsd_ped1(tmp_path):
    base = tmp_path / "UCSDped1"
    for clip in ("Train/Train001", "Test/Test001", "Test/Test002", "Test/Test003"):
        for i in range(1, 6):
            save(base, f"{clip}/{i:03d}.tif", size=(158, 238))
    save(base, "Train/Train001/._001.tif")  # resource forks that the archive holds
    for i in range(1, 6):
        save(base, f"Test/Test003_gt/{i:03d}.bmp", value=0, size=(158, 238), spot=i > 3)
    lines = ["TestVideoFile = {};"]
    lines += [f"TestVideoFile{{end+1}}.gt_frame = [{r}];" for r in ("2:3, 5:5", "1:2", "3:5")]
    (base / "Test/UCSDped1.m").write_text("\n".join(lines))
    table = read_table(tmp_path, name="ucsd_ped1")
    assert counts(table) == {"train/good": 5, "test/good": 8, "test/anomaly": 7}
    anomalous = [table.relative(s) for s in table.test() if s.label]
    assert anomalous[:3] == [f"Test/Test001/{i:03d}.tif" for i in (2, 3, 5)]
    masked = [s for s in table.test() if s.mask]
    assert [table.relative(s) for s in masked] == ["Test/Test003/004.tif", "Test/Test003/005.tif"]
    assert read_mask(masked[0].mask).sum() == 6
    assert decode(masked[0].path, channels=1).shape == (158, 238, 1)
    assert has(table.notes, "Test003: on 1 frames the masks contradict")
    assert has(table.notes, "Train holds 1 clips, published are 34")
    assert has(table.notes, "1 test clips have masks, published are 10")
    only = read_table(base, name="ucsd_ped1", category="masked")
    assert counts(only) == {"train/good": 5, "test/good": 3, "test/anomaly": 2}
    (base / "Test/UCSDped1.m").unlink()
    unlabelled = read_table(base, name="ucsd_ped1")
    assert counts(unlabelled) == counts(only)
    assert has(unlabelled.notes, "left out: Test001, Test002")


class TestElpv:
    PROBABILITIES = ("0.0", "0.3333333333333333", "0.6666666666666666", "1.0")

    @pytest.fixture
    def root(self, tmp_path):
        lines = []
        for i in range(40):
            path = f"images/cell{i + 1:04d}.png"
            save(tmp_path / "elpv_dataset/data", path, value=i, size=(300, 300))
            probability = self.PROBABILITIES[max(0, i - 36)]
            lines.append(f"{path}  {probability}    {'mono' if i % 2 else 'poly'}")
        (tmp_path / "elpv_dataset/data/labels.csv").write_text("\n".join(lines) + "\n")
        return tmp_path

    @pytest.mark.parametrize("place", ["", "elpv_dataset", "elpv_dataset/data"])
    def test_labels_and_split(self, root, place):
        table = read_table(root / place, name="elpv")
        kinds = {"test/p33": 1, "test/p67": 1, "test/p100": 1}
        # 37 good cells, of which a fifth, rounded, is for testing.
        assert counts(table) == {"train/good": 30, "test/good": 7, **kinds}
        assert table.samples == read_table(root / place, name="elpv").samples
        assert has(table.notes, "anomalous are", "1/3, 2/3, 1")
        assert has(table.notes, "7 of 37 good images", "fixed seed")
        assert decode(table.samples[5].path, channels=1)[0, 0, 0] == 5

    def test_which_count_as_anomalous(self, root):
        table = read_table(root, name="elpv", anomalous="2/3, 1")
        assert set(table.kinds()) == {"p67", "p100"}
        assert has(table.notes, "left out", "1 of 1/3")
        assert not has(table.notes, "p33")
        with pytest.raises(UserError, match="is a list of 1/3, 2/3, 1"):
            read_table(root, name="elpv", anomalous="0.5")
        with pytest.raises(UserError, match=r"is for data\.name=elpv"):
            read_table(root, name="auto", anomalous="1")

    def test_types_of_cells(self, root):
        mono, poly = (read_table(root, name="elpv", category=c) for c in ("mono", "poly"))
        assert len(mono.samples) == len(poly.samples) == 20
        with pytest.raises(UserError, match="no category 'multi'"):
            read_table(root, name="elpv", category="multi")

    def test_missing_images_and_bad_lines(self, root):
        (root / "elpv_dataset/data/images/cell0001.png").unlink()
        assert has(read_table(root, name="elpv").notes, "1 images of labels.csv are missing")
        (root / "elpv_dataset/data/labels.csv").write_text("images/cell0002.png 0.5 mono\n")
        with pytest.raises(UserError, match=r"line 1: 0\.5 is none of"):
            read_table(root, name="elpv")

    def test_the_installed_package_is_found(self, root, monkeypatch):
        (root / "elpv_dataset/__init__.py").write_text("raise ImportError('not to be imported')")
        monkeypatch.syspath_prepend(root)
        assert len(read_table("", name="elpv").samples) == 40


def test_kolektor_sdd(tmp_path):
    for part in range(1, 6):
        for view in range(8):
            name = f"kos{part:02d}/Part{view}"
            save(tmp_path, f"{name}.jpg", size=(125, 50))
            defective = view == part
            save(tmp_path, f"{name}_label.bmp", value=0, size=(125, 50), spot=defective)
    table = read_table(tmp_path, name="kolektor_sdd")
    assert counts(table) == {"train/good": 28, "test/good": 7, "test/defect": 5}
    good_parts = [{table.relative(s)[:5] for s in group if s.label == 0}
                  for group in (table.train_good(), table.test())]  # fmt: skip
    assert len(good_parts[1]) == 1 and not good_parts[0] & good_parts[1]
    assert all((s.mask is not None) == (s.label == 1) for s in table.samples)
    assert has(table.notes, "good: 312 of 347 published images are missing")
    assert has(table.notes, "parts", next(iter(good_parts[1])))


def test_magnetic_tile_as_shipped(tmp_path):
    for kind, n in (("Blowhole", 2), ("Break", 1), ("Free", 10), ("Uneven", 1)):
        for i in range(n):
            save(tmp_path, f"MT_{kind}/Imgs/exp1_num_{i}.jpg")
            mask = {"value": 0, "spot": kind in ("Blowhole", "Break")}
            save(tmp_path, f"MT_{kind}/Imgs/exp1_num_{i}.png", **mask)
    table = read_table(tmp_path, name="magnetic_tile")
    kinds = {"test/blowhole": 2, "test/break": 1, "test/uneven": 1}
    assert counts(table) == {"train/good": 8, "test/good": 2, **kinds}
    assert all((s.mask is not None) == (s.label == 1) for s in table.samples)
    assert has(table.notes, "crack: 57 of 57 published images are missing")


def test_magnetic_tile_in_the_mvtec_layout(tmp_path):
    save(tmp_path, "train/good/a.jpg")
    save(tmp_path, "test/crack/b.jpg")
    save(tmp_path, "ground_truth/crack/b.png", value=0, spot=True)
    table = read_table(tmp_path, name="magnetic_tile")
    assert counts(table) == {"train/good": 1, "test/crack": 1}
    assert table.test()[0].mask is not None


@pytest.mark.parametrize("name", sorted(set(CATALOGUE) - {"elpv"}))
def test_a_folder_of_something_else_or_nothing(tmp_path, name):
    category = {"mnist": "1", "cifar10": "cat"}.get(name, "")
    save(tmp_path, "notes/a.png")
    with pytest.raises(UserError):
        read_table(tmp_path, name=name, category=category)
    with pytest.raises(UserError, match="does not exist"):
        read_table(tmp_path / "nowhere", name=name, category=category)


REAL = {
    ("mvtec_ad", "mvtec_ad", "bottle"): 1,
    ("mvtec_ad", "mvtec_ad", "screw"): 1,
    ("mvtec_ad", "mvtec_ad", "transistor"): 1,
    ("magnetic_tile", "magnetic_tile", ""): 0,
    **{("mnist", "mnist", digit): 1 for digit in "0123456789"},
    ("cifar10", "cifar10", "airplane"): 2,
    ("cifar10", "cifar10", "truck"): 2,
}


@pytest.mark.parametrize(("folder", "name", "category"), REAL)
def test_the_real_data_agrees_with_what_is_published(real_data, folder, name, category):
    """Notes beyond the expected ones (sizes of copies, how it was read) are differences."""
    if not (real_data / folder / (category if name == "mvtec_ad" else "")).is_dir():
        pytest.skip(f"no {folder}/{category}")
    table = read_table(real_data / folder, name=name, category=category)
    assert len(table.notes) == REAL[folder, name, category], table.notes
    assert not has(table.notes, "missing") and not has(table.notes, "published images")
    for sample in table.samples[:: len(table.samples) // 4]:
        assert decode(sample.path, channels=1).std() > 0
        if sample.mask and sample.defect != "uneven":
            assert read_mask(sample.mask).any()
    assert table.name == name


def test_the_real_elpv():
    """Where the package is installed: all 2,624 cells, as published."""
    pytest.importorskip("elpv_dataset")
    table = read_table("", name="elpv")
    assert len(table.samples) == 2624
    assert len(table.notes) == 2, table.notes
    assert decode(table.samples[0].path, channels=1).shape == (300, 300, 1)
