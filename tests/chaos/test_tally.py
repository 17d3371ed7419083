"""The table of a part of the chaos suite: every name gets its share, and a file is gone on with."""

import json
import sys

import pytest

COLUMNS = ("survived", "lost")


@pytest.fixture
def tally(project_root, monkeypatch):
    monkeypatch.syspath_prepend(str(project_root / "tests" / "chaos"))
    yield __import__("tally")
    del sys.modules["tally"]


def test_a_second_call_goes_on_behind_the_cases_of_the_first(tally, tmp_path, capsys, monkeypatch):
    file = tmp_path / "table.json"
    monkeypatch.setattr(tally, "BEGUN", tally.BEGUN - 100)
    shares = {"train": 1, "predict": 3}
    make = lambda: tally.Tally("killed", COLUMNS, shares, 8, seed=5, json_file=str(file))
    first = make()
    cases = first.cases()
    done = [next(cases) for _ in range(5)]
    for name, _ in done:
        first.add(name, "survived")
    first.show()
    second = make()
    others = list(second.cases())
    everything = [("train", 5), ("train", 6), *(("predict", case) for case in range(5, 11))]
    assert sorted(done + others) == sorted(everything)
    for name, _ in others:
        second.add(name, "lost", "this was lost")
    second.show()
    assert make().notes == ["this was lost"] * 3 and list(make().cases()) == []
    written = json.loads(file.read_text())["killed"]
    assert written["all"] == {"tried": 8, "survived": 5, "lost": 3}
    assert written["processor_seconds"] > 0
    assert written["seconds"] == pytest.approx(200, abs=20), "both calls"
    assert "| **all** | 8 | 5 | 3 |" in tally.markdown({"killed": written})
    assert "| killed | 1,234 | 7 |" in tally.markdown(
        {"killed": written | {"seconds": 1234.2, "processor_seconds": 7.4}}
    )
    assert "all             8         5       3" in capsys.readouterr().out


def test_parts_share_a_file_and_batches_are_counted(tally, tmp_path):
    file = tmp_path / "table.json"
    for title in ("read", "mutated"):
        table = tally.Tally(title, ("same",), {"a": 1, "b": 1}, 6, seed=0, json_file=str(file))
        assert list(table.batches()) == [("a", 0, 3), ("b", 0, 3)]
        for name in "aaabbb":
            table.add(name, "same")
        table.show()
    written = json.loads(file.read_text())
    assert written["read"]["all"] == written["mutated"]["all"] == {"tried": 6, "same": 6}
    assert written["read"]["rows"]["a"] == {"tried": 3, "same": 3, "next": 3}
