import os

import pytest
from hypothesis import given, settings, strategies as st

from jaxad.evaluation import names as module
from jaxad.evaluation.names import (
    find_inputs,
    name_outputs,
    stem_and_full,
    unique_names,
)
from jaxad.run.errors import UserError


@pytest.fixture
def tree(tmp_path):
    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        return tmp_path

    return make


def names(found):
    return [name for _, name in found]


def test_names_start_below_the_folder_that_all_inputs_share(tree):
    root = tree("line1/good/a.png", "line2/good/a.png", "line2/good/sub/b.png", "c.png")
    out = root / "out"
    assert names(find_inputs([root / "line2"], out)) == ["good/a.png", "good/sub/b.png"]
    both = find_inputs([root / "line1" / "good", root / "line2" / "good"], out)
    assert names(both) == ["line1/good/a.png", "line2/good/a.png", "line2/good/sub/b.png"]
    assert both[0][0] == str(root / "line1" / "good" / "a.png")
    assert names(find_inputs([root / "c.png"], out)) == ["c.png"]
    # The same image by several ways is one image.
    again = find_inputs([root / "c.png", root, root / "line1" / ".." / "c.png"], out)
    assert sorted(names(again)) == sorted(["c.png", *names(both)])


def test_names_without_a_common_folder_are_told_apart_by_their_inputs():
    found = {path: path for path in ("/a/x/1.png", "/b/x/sub/1.png", "/1.png")}
    named = module._below_tails(found, ["/a/x", "/b/x", "/"])
    assert names(named) == ["a/x/1.png", "b/x/sub/1.png", "1.png"]
    shards = "/b/y::"
    found = {path: path for path in ("/a/x/1.png", "/b/y::test/0")}
    assert names(module._below_tails(found, ["/a/x", shards])) == ["x/1.png", "y::/test/0"]


def test_no_name_leads_to_the_root_of_the_disk(tree, monkeypatch):
    root = tree("line1/a.png", "line2/a.png")
    monkeypatch.setattr(os.path, "commonpath", lambda folders: os.sep)
    assert names(find_inputs([root / "line1", root / "line2"], root / "out")) == [
        "line1/a.png",
        "line2/a.png",
    ]


def test_relative_inputs_keep_the_paths_that_the_user_gave(tree, monkeypatch):
    monkeypatch.chdir(tree("photos/a.png", "b.png"))
    assert find_inputs(["photos", "b.png"], "out") == [
        (os.path.join("photos", "a.png"), "photos/a.png"),
        ("b.png", "b.png"),
    ]
    assert names(find_inputs(["."], "out")) == ["b.png", "photos/a.png"]


def test_results_inside_an_input_folder_are_no_input(tree):
    root = tree("photos/a.png", "photos/out/overlays/a.png", "photos/output2/b.png")
    assert names(find_inputs([root / "photos"], root / "photos" / "out")) == [
        "a.png",
        "output2/b.png",
    ]
    link = root / "link"
    link.symlink_to(root / "photos" / "out")
    assert names(find_inputs([root / "photos"], link)) == ["a.png", "output2/b.png"]
    # An input below the output is what the user says it is.
    assert names(find_inputs([root / "photos"], root)) == [
        "a.png",
        "out/overlays/a.png",
        "output2/b.png",
    ]


@pytest.mark.parametrize(
    ("place", "output"),
    [
        ("photos", "photos"),
        ("photos/overlays", "photos"),
        ("photos/overlays/a.png", "photos"),
        ("photos/anomaly_maps/x/test/good", "photos"),
    ],
)
def test_inputs_that_would_be_written_over_are_refused(tree, place, output):
    root = tree("photos/overlays/a.png", "photos/anomaly_maps/x/test/good/000.tiff")
    with pytest.raises(UserError, match="would be written over"):
        find_inputs([root / place], root / output)


def test_missing_and_empty_inputs_are_named(tree):
    root = tree("out/a.png", "empty/readme.txt")
    with pytest.raises(UserError, match=r"gone\.png does not exist"):
        find_inputs([root / "out", root / "gone.png"], root / "x")
    with pytest.raises(UserError, match=r"empty: no file is read as an image: 1 \.txt"):
        find_inputs([root / "empty"], root / "x")
    with pytest.raises(UserError, match="no image but those in --output"):
        find_inputs([root], root / "out")


def test_one_file_of_many_that_is_gone_is_kept_for_its_row(tree):
    root = tree("out/a.png", "out/b.png")
    given = [root / "out/a.png", root / "gone.png", root / "out/b.png"]
    assert names(find_inputs(given, root / "x")) == ["out/a.png", "gone.png", "out/b.png"]


def test_outputs_follow_mvtecs_layout(tree):
    root = tree("bottle/test/broken/000.png", "bottle/test/good/000.png", "flat/x.png")
    for place in ("bottle", "bottle/test", "bottle/test/good"):
        found = find_inputs([root / place], root / "out")
        tiffs = [source.tiff for source in name_outputs(found, "bottle")]
        assert tiffs[-1] == "anomaly_maps/bottle/test/good/000.tiff"
    (source,) = name_outputs(find_inputs([root / "flat"], root / "out"), "bottle")
    assert source.overlay == "overlays/x.png"
    assert source.tiff == "anomaly_maps/bottle/test/x.tiff"


def test_equal_stems_keep_their_extensions_and_nobody_elses_name():
    def outputs(*files):
        return unique_names([stem_and_full(f) for f in files])

    assert outputs("a.png", "b.png", "a.jpg") == ["a.png", "b", "a.jpg"]
    assert outputs("a.png", "A.PNG") == ["a.png", "A.PNG~1"]
    # "a.png.tif" would be called like the image a.png, which has a namesake itself.
    assert outputs("a.png", "a.jpg", "a.png.tif") == ["a.png", "a.jpg", "a.png.tif"]
    assert outputs("x.png/b.png", "x.jpg") == ["x.png_/b", "x"]
    assert outputs(".png", "no_extension") == [".png", "no_extension"]
    long = "ü" * 120
    assert all(len(os.fsencode(name)) <= 202 for name in outputs(f"{long}1.png", f"{long}2.png"))


PARTS = st.sampled_from(["a", "A", "b", "a.png", "a~1"])
FILES = st.lists(
    st.builds("{}/{}{}".format, PARTS, PARTS, st.sampled_from(["", ".png", ".jpg", ".PNG"])),
    unique=True,
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(files=FILES)
def test_no_two_outputs_are_equal_and_none_is_a_folder_of_another(files):
    outputs = [f"{n}.png".casefold() for n in unique_names([stem_and_full(f) for f in files])]
    assert len(set(outputs)) == len(files)
    folders = {"/".join(o.split("/")[:k]) for o in outputs for k in range(1, o.count("/") + 1)}
    assert not folders & set(outputs)


def test_many_equal_names_are_numbered_in_one_pass():
    class Counted(str):
        count = 0

        def casefold(self):
            Counted.count += 1
            return str.casefold(self)

    n = 300
    names = unique_names([(Counted("a"), Counted("a.png"))] * n)
    assert len(set(names)) == n and names[:3] == ["a.png", "a.png~1", "a.png~2"]
    assert Counted.count < 10 * n
