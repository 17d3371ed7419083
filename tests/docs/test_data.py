"""The page on data names every data set, and its number of slips is the files'."""

from jaxad.benchmark.printed import paper_tables
from jaxad.data.datasets import NAMES


def test_every_name_and_every_slip(project_root):
    page = (project_root / "docs" / "data.md").read_text()
    assert [name for name in NAMES if f"`{name}`" not in page] == []
    slips = [s for t in paper_tables().values() for s in t["slips"] if s["kind"] == "mean"]
    words = {12: "Twelve", 13: "Thirteen", 14: "Fourteen"}
    assert f"{words[len(slips)]} printed means" in page
