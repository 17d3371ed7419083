"""What CONTRIBUTING says of a new model is all that a new model needs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

SUITES = ["models/test_conformance.py", "run/test_config.py", "evaluation/test_export.py",
          "cli/test_bad_input.py", "test_import_law.py"]  # fmt: skip


@pytest.mark.guide
def test_a_model_is_added_in_four_files(project_root, tmp_path):
    text = (project_root / "CONTRIBUTING.md").read_text()
    section = text.partition("\n## A new model\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^   ```python\n(.*?)^   ```$", section, re.MULTILINE | re.DOTALL)
    model, entry, config, case = map(textwrap.dedent, blocks)
    for folder in ("jaxad", "configs", "tests"):
        left_out = shutil.ignore_patterns("__pycache__", "golden", "printed_tables")
        shutil.copytree(project_root / folder, tmp_path / folder, ignore=left_out)
    for file in ("pyproject.toml", "docs/export.md"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(project_root / file, tmp_path / file)

    (tmp_path / "jaxad/models/linear.py").write_text(model)
    registry = tmp_path / "jaxad/models/__init__.py"
    known = registry.read_text()
    changed = known.replace("    cae,\n", "    cae,\n    linear,\n")
    changed = changed.replace('    "mae": Arch', f"    {entry.strip()}\n" + '    "mae": Arch')
    assert changed.count("linear") == 3 + 1
    registry.write_text(changed)
    (tmp_path / "configs/linear.py").write_text(config)
    cases = tmp_path / "tests/model_cases.py"
    cases.write_text(cases.read_text().replace("CASES = {\n", f"CASES = {{\n    {case.strip()}\n"))

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--no-header", "-n0",
         "-k", "linear or every_builder or test_import_law",
         *(f"tests/{file}" for file in SUITES)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    assert passed > 25 and "failed" not in done.stdout
