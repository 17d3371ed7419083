"""What is said of files as people have them, by `data inspect` and when training begins."""

import pytest
from file_cases import CASES, inspected, judged, page, trained


def all_told(parts, notes):
    return all(any(part in note for note in notes) for part in parts)


@pytest.mark.parametrize("name", CASES)
def test_what_is_said_of_files(tmp_path, name):
    case = CASES[name]
    case.write(tmp_path)
    told = inspected(tmp_path)
    assert all_told(case.inspected, told), told
    assert case.inspected or not told
    notes, error = trained(tmp_path, case)
    assert all_told(case.trained, [*notes, error]), (notes, error)
    assert case.trained or not [*notes, *filter(None, [error])]
    if not error:
        fault = judged(tmp_path, case)
        assert case.judged in fault and (case.judged or not fault)


def test_the_page_is_made_of_these_cases(project_root):
    assert page() in (project_root / "docs" / "folders.md").read_text()
