"""Who may import what, read from the source: no module is imported."""

from __future__ import annotations

import ast
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


def imports(file: pathlib.Path, *, lazy: bool) -> set[str]:
    """All imports of a file, or only those that run when it is imported."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.update(imported(node))
        for child in ast.iter_child_nodes(node):
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if (lazy or not inside) and not only_for_types(child):
                visit(child)

    visit(ast.parse(file.read_text()))
    return found


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
    assert "tensorflow" in outside(PACKAGE / "data/pipeline.py")
    assert "tensorflow" not in outside(PACKAGE / "data/pipeline.py", lazy=False)


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
        ("sklearn", {"models"}),
        ("dm_pix", {"ops"}),
        ("orbax", {"training"}),
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
            for node in ast.walk(ast.parse(file.read_text()))
        )

    assert [module_name(file) for file in FILES if names_it(file)] == ["jaxad.training.parallel"]


def test_files_are_written_by_one_rule():
    """Whole or not at all, tables alike: see ``jaxad.run.files``."""
    for file in FILES:
        if module_name(file) != "jaxad.run.files":
            assert not imports(file, lazy=True) & {"csv", "tempfile"}, file
            assert "os.replace" not in file.read_text(), file


def test_models_and_ops_know_nothing_of_runs():
    """The line through the code has one direction."""
    for folder, later in {
        "data": ("models", "training", "evaluation", "report"),
        "models": ("training", "evaluation", "report"),
        "training": ("evaluation", "report"),
        "report": ("training", "evaluation", "models"),
    }.items():
        for file in files_in(folder):
            ahead = [n for n in inside(file) if n.startswith(tuple(f"jaxad.{x}" for x in later))]
            assert ahead == [], file


def test_there_are_no_cycles():
    """Of imports that run when a module is imported; a package is imported before its parts."""
    edges = {}
    for name, file in MODULES.items():
        targets = {t for t in imports(file, lazy=False) if t in MODULES}
        # `import a.b` runs a/__init__.py too; an __init__ that gathers its own parts is no cycle.
        edges[name] = {t for t in targets if t != name}
    state: dict[str, int] = {}
    path: list[str] = []

    def visit(name: str) -> None:
        if state.get(name) == 2:
            return
        assert state.get(name) != 1, " -> ".join([*path[path.index(name) :], name])
        state[name] = 1
        path.append(name)
        for target in sorted(edges[name]):
            visit(target)
        path.pop()
        state[name] = 2

    for name in edges:
        visit(name)


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
