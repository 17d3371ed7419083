"""Plants small errors in jaxad, one at a time, and counts how many the tests notice.

    make mutants                          # the seeded sample whose score CONTRIBUTING names
    make mutants ARGS="--sample 0"        # every mutant: a day
    make mutants ARGS="jaxad/ops/ssim.py --sample 0"

The errors are cosmic-ray's: another operator, another comparison, a number one more or less, `not`,
a lost decorator, a loop that never runs. Each is planted in a copy of the checkout, in which the
tests of its file alone run until one fails. Annotations are left alone, since nothing computes
with them. Survivors are written with their differences to build/mutants.txt: a gap in the tests,
or a change that makes no difference.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import difflib
import os
import pathlib
import queue
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGETS = ("jaxad/ops", "jaxad/metrics", "jaxad/training/step.py")
COPIED = ("jaxad", "configs", "tests", "tools", "pyproject.toml")
REPORT = ROOT / "build" / "mutants.txt"

# Of the replacements of operators those that a person could have written; the others fail at once.
REPLACED = re.compile(
    "Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Div|Mod_Mul|Pow_Mul|BitOr_BitAnd|BitAnd_BitOr"
    "|Lt_LtE|Lt_GtE|LtE_Lt|LtE_Gt|Gt_GtE|Gt_LtE|GtE_Gt|GtE_Lt|Eq_NotEq|NotEq_Eq|Is_IsNot|IsNot_Is"
    "|Delete_USub|Delete_Not|Delete_Invert"
)


class Mutant(NamedTuple):
    """The n-th place in a file where an operator of cosmic-ray applies."""

    file: str
    operator: str
    occurrence: int
    line: int


def mutants_of(file: str, source: str) -> list[Mutant]:
    """All mutants of a file, apart from its annotations."""
    nodes = list(ast_nodes(get_ast(source)))
    found = []
    for name in plugins.operator_names():
        operator, _, replacement = name.partition("/")[2].partition("_")
        if operator.startswith("Variable") or (replacement and not REPLACED.fullmatch(replacement)):
            continue  # the first want the names of variables
        operator = plugins.get_operator(name)
        places = [node for node in nodes for _ in operator().mutation_positions(node)]
        found += [
            Mutant(file, name, occurrence, node.start_pos[0])
            for occurrence, node in enumerate(places)
            if not in_annotation(node)
        ]
    return found


def in_annotation(node) -> bool:
    """Whether a node of the syntax tree belongs to the annotation of an argument or a result."""
    place_of = {"tfpdef": 2, "annassign": 1}  # after "name:" and ":"
    while (parent := node.parent) is not None:
        if parent.type == "funcdef" and node is parent.annotation:
            return True
        if parent.type in place_of and node is parent.children[place_of[parent.type]]:
            return True
        node = parent
    return False


def tests_of(file: str) -> list[str]:
    """The tests to run for a file: its own first, then those of its folder that name it."""
    path = pathlib.Path(file)
    folder = ROOT / "tests" / path.parent.relative_to("jaxad")
    own = folder / f"test_{path.stem}.py"
    tests = sorted(folder.glob("test_*.py"))
    if path.parent.name == "metrics":
        others = tests  # they import from the package
    else:
        named = re.compile(rf"^(from|import) .*\b{path.stem}\b", re.MULTILINE)
        others = [test for test in tests if named.search(test.read_text())]
    chosen = [own] * own.exists() + [test for test in others if test != own]
    return [str(test.relative_to(ROOT)) for test in chosen or tests]


def copy_of_checkout(folder: pathlib.Path) -> pathlib.Path:
    """A copy that may be changed."""
    for name in COPIED:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, folder / name)
    return folder


def run_tests(copy: pathlib.Path, tests: Sequence[str], timeout: float | None = None) -> bool:
    """Whether the tests pass in time."""
    environment = os.environ | {
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "1",
        "JAX_COMPILATION_CACHE_DIR": str(copy.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, timeout=timeout, capture_output=True, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def main() -> None:
    """Draws the sample, runs it, and prints the score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", default=TARGETS, help="files or folders of jaxad")
    parser.add_argument("--sample", type=int, default=300, help="how many mutants; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="tests side by side")
    options = parser.parse_args()

    paths = [ROOT / target for target in options.targets]
    files = [f for path in paths for f in (path.rglob("*.py") if path.is_dir() else [path])]
    sources = {str(file.relative_to(ROOT)): file.read_text() for file in sorted(files)}
    every = [mutant for file, source in sources.items() for mutant in mutants_of(file, source)]
    size = min(options.sample or len(every), len(every))
    sample = sorted(random.Random(options.seed).sample(every, size))
    print(f"{size} of {len(every)} mutants in {len(sources)} files", flush=True)

    with tempfile.TemporaryDirectory(prefix="jaxad-mutants-") as folder:
        copies: queue.Queue[pathlib.Path] = queue.Queue()
        for number in range(options.jobs):
            copies.put(copy_of_checkout(pathlib.Path(folder) / str(number)))
        tests = {file: tests_of(file) for file in {mutant.file for mutant in sample}}
        limits = {}
        for chosen in set(map(tuple, tests.values())):
            start = time.monotonic()
            if not run_tests(copies.queue[0], chosen):
                sys.exit(f"{' '.join(chosen)} fail without any mutant")
            limits[chosen] = 30 + 4 * (time.monotonic() - start)

        def plant(mutant: Mutant) -> str | None:
            """What was changed, if the tests pass with it."""
            before, chosen = sources[mutant.file], tuple(tests[mutant.file])
            operator = plugins.get_operator(mutant.operator)()
            after = mutate_code(before, operator, mutant.occurrence)
            copy = copies.get()
            try:
                (copy / mutant.file).write_text(after)
                if not run_tests(copy, chosen, limits[chosen]):
                    return None
            finally:
                (copy / mutant.file).write_text(before)
                copies.put(copy)
            lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=1, lineterm="")
            return "\n".join([f"{mutant.file}:{mutant.line}", *list(lines)[3:]])

        survivors, outcomes = [], collections.defaultdict(list)
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            for mutant, survivor in zip(sample, pool.map(plant, sample), strict=True):
                outcomes[str(pathlib.Path(mutant.file).parent)].append(survivor is None)
                if survivor is not None:
                    survivors.append(survivor)
                    print(survivor, end="\n\n", flush=True)

    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("\n\n".join(survivors))
    outcomes["all"] = [noticed for folder in outcomes.values() for noticed in folder]
    for place, noticed in outcomes.items():
        share = sum(noticed) / len(noticed)
        print(f"{place}: {sum(noticed)} of {len(noticed)} noticed, {share:.0%}")
    print(f"the survivors: {REPORT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
