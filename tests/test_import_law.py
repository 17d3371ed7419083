"""Who may import what, read from the source: no module is imported."""

from __future__ import annotations

import ast
import functools
import pathlib
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parent.parent / "jaxad"
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(file: pathlib.Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in FILES}


def imported(node: ast.stmt) -> list[str]:
    """Modules that an import statement names; ``from a import b`` names a.b where it is one."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, "relative imports hide what is imported"
    return [
        f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in MODULES else node.module
        for alias in node.names
    ]


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


@functools.cache
def tree(file: pathlib.Path) -> ast.Module:
    return ast.parse(file.read_text())


@functools.cache
def imports(file: pathlib.Path, *, lazy: bool) -> frozenset[str]:
    """All imports of a file, or only those that run when it is imported."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.update(imported(node))
        for child in ast.iter_child_nodes(node):
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if (lazy or not inside) and not only_for_types(child):
                visit(child)

    visit(tree(file))
    return frozenset(found)


def outside(file: pathlib.Path, *, lazy: bool = True) -> set[str]:
    """Top-level names of everything imported that is not Python's own."""
    names = {name.partition(".")[0] for name in imports(file, lazy=lazy)}
    return names - set(sys.stdlib_module_names)


def inside(file: pathlib.Path) -> set[str]:
    return {name for name in imports(file, lazy=True) if name.partition(".")[0] == "jaxad"}


def part(file: pathlib.Path) -> str:
    """The folder of jaxad that a file belongs to."""
    parts = file.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def files_in(folder: str) -> list[pathlib.Path]:
    found = [file for file in FILES if part(file) == folder]
    assert found
    return found


def test_there_is_something_to_check():
    assert {"ops", "metrics", "data", "models", "training", "evaluation", "report"} <= {
        part(file) for file in FILES
    }
    assert "jax" in outside(PACKAGE / "ops/ssim.py")
    assert "jaxad.run.errors" in inside(PACKAGE / "cli/main.py")
    assert "tensorflow" in outside(PACKAGE / "data/tensorflow.py")
    assert "tensorflow" not in outside(PACKAGE / "data/tensorflow.py", lazy=False)


# Folder -> what its files may import beside Python's own library, and of jaxad.
PURE = {
    "ops": ({"jax", "dm_pix", "jaxtyping", "numpy"}, ("jaxad.ops",)),
    "metrics": ({"numpy", "scipy", "jaxtyping"}, ("jaxad.metrics",)),
}


@pytest.mark.parametrize("folder", PURE)
def test_the_mathematics_stands_alone(folder):
    packages, own = PURE[folder]
    for file in files_in(folder):
        assert outside(file) <= packages | {"jaxad"}, file
        assert all(name.startswith(own) for name in inside(file)), (file, inside(file))


@pytest.mark.parametrize(
    "package, folders",
    [
        ("tensorflow", {"data"}),
        ("tensorflow_datasets", {"data"}),
        ("array_record", {"data"}),
        ("torch", {"convert"}),
        ("torchvision", set()),
        ("matplotlib", set()),
        ("jinja2", {"report"}),
        ("sklearn", {"models"}),
        ("dm_pix", {"ops"}),
        ("orbax", {"training"}),
        ("onnx", {"export"}),
        ("onnxruntime", set()),
    ],
)
def test_a_package_is_met_in_one_folder(package, folders):
    assert {part(file) for file in FILES if package in outside(file)} <= folders


@pytest.mark.parametrize("package", ["tensorflow", "tensorflow_datasets", "array_record", "torch"])
def test_what_is_optional_or_slow_is_imported_inside_a_function(package):
    assert [file for file in FILES if package in outside(file, lazy=False)] == []


def test_no_module_imports_a_config():
    for file in FILES:
        names = imports(file, lazy=True)
        assert not [n for n in names if n.partition(".")[0] == "configs" or "configs" in n], file


def test_pmap_is_named_in_one_file():
    def names_it(file):
        return any(
            "pmap" in (getattr(node, "attr", None), getattr(node, "id", None))
            for node in ast.walk(tree(file))
        )

    assert [module_name(file) for file in FILES if names_it(file)] == ["jaxad.training.parallel"]


def test_files_are_written_by_one_rule():
    """Whole or not at all, tables alike: see ``jaxad.run.files``."""
    for file in FILES:
        if module_name(file) != "jaxad.run.files":
            allowed = {"csv"} if module_name(file) == "jaxad.run.lists" else set()  # which reads
            assert not imports(file, lazy=True) & {"csv", "tempfile"} - allowed, file
            assert "os.replace" not in file.read_text(), file


def test_json_is_read_by_one_rule():
    """No file that is nested too deeply ends in a RecursionError: see ``jaxad.run.schema``."""
    for file in FILES:
        if module_name(file) != "jaxad.run.schema":
            assert "json.load" not in file.read_text(), file


def test_what_is_printed_goes_through_one_filter():
    """No escape code of a file's name reaches a terminal: see ``jaxad.run.text``."""

    def prints(file):
        return any(
            isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
            for node in ast.walk(tree(file))
        )

    assert [module_name(file) for file in FILES if prints(file)] == ["jaxad.run.text"]


# Folder -> the folders that its files may import from, lazily too, beside its own.
BELOW: dict[str, set[str]] = {
    "run": set(),
    "ops": set(),
    "metrics": set(),
    "data": {"run", "ops"},
    "report": {"run", "data"},
    "models": {"run", "data", "ops"},
    "convert": {"run", "data", "ops", "models", "training"},
    "training": {"run", "data", "ops", "models", "convert"},
    "evaluation": {"run", "data", "ops", "metrics", "report", "models", "training"},
    "benchmark": {"run", "data", "metrics", "report", "models", "training", "evaluation"},
    "selection": {
        "run", "data", "metrics", "report", "models", "convert", "training", "evaluation",
    },
    "export": {"run", "data", "report", "evaluation"},
    "cli": {
        "run", "data", "ops", "metrics", "report", "models", "convert", "training", "evaluation",
        "benchmark", "selection", "export",
    },
}  # fmt: skip
RUN = (
    "errors",
    "text",
    "schema",
    "pickles",
    "files",
    "lists",
    "progress",
    "environment",
    "options",
    "settings",
    "config",
    "folder",
)
"""The files of ``run``, each of which may import from those before it."""


def test_the_line_through_the_code_has_one_direction():
    assert {part(file) for file in FILES} == {*BELOW, ""}
    for name, file in MODULES.items():
        if part(file):
            own = part(file)
            ahead = {n for n in inside(file) if not in_one_of(n, {own, *BELOW[own]})}
            assert ahead == set(), (name, ahead)


def in_one_of(name: str, folders: set[str]) -> bool:
    """Whether a module lies in one of the folders; jaxad itself holds but the version."""
    return name == "jaxad" or name.split(".")[1] in folders


def test_the_files_of_a_run_stand_in_one_order():
    for file in files_in("run"):
        if file.stem in RUN:
            before = {f"jaxad.run.{name}" for name in RUN[: RUN.index(file.stem)]}
            later = {n for n in inside(file) if n.startswith("jaxad.run.")} - before
            assert later == set(), (file, later)


def test_there_are_no_circles():
    """Of imports at the top of a file and of those inside functions."""
    edges = {name: imports(file, lazy=True) & {*MODULES} - {name} for name, file in MODULES.items()}
    assert circle(edges) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def circle(edges: dict[str, set[str]]) -> list[str]:
    """The first circle that is found, from a name back to it; empty where there is none."""
    finished: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        for target in sorted(edges[name] - finished):
            if found := visit(target, [*path, name]):
                return found
        finished.add(name)
        return []

    return next(filter(None, (visit(name, []) for name in edges)), [])


@pytest.mark.parametrize("name", ["jaxad", "jaxad.cli.main", "jaxad.run.errors", "jaxad.__main__"])
def test_the_way_to_the_help_is_light(name):
    """Transitively: nothing but Python's own library."""
    seen, waiting = set(), [name]
    while waiting:
        module = waiting.pop()
        seen.add(module)
        assert outside(MODULES[module], lazy=False) <= {"jaxad"}, module
        waiting += [
            t for t in imports(MODULES[module], lazy=False) if t in MODULES and t not in seen
        ]
