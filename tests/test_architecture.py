"""The rules of the house that a program can check."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

BELOW = {"carstore": (), "projections": ("carstore",), "engine": ("carstore", "projections")}
"""Each package, and those it may import."""

MAX_PUBLIC_NAMES = {"carstore": 30, "projections": 36, "engine": 30}
"""More in projections: a name for each view, beside what can be done with any of them."""

WALL_CLOCKS = {
    ("time", "time"),
    ("time", "time_ns"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
}

TEST_FOLDERS_OF_THEIR_OWN = {"docs", "golden", "proofs", "benchmarks", "conformance"}
"""What is tested there is no package of the distribution."""

MODULES = sorted(path for package in BELOW for path in (ROOT / package).rglob("*.py"))
IDS = [str(path.relative_to(ROOT)) for path in MODULES]


def imports(path: Path) -> Iterator[str]:
    """The names of the modules that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield node.module or ""


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_imports_run_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    above = BELOW.keys() - {package, *BELOW[package]}
    found = {name for name in imports(path) if name.split(".")[0] in above}
    assert not found


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_only_the_clock_reads_the_time(path: Path) -> None:
    if path == ROOT / "carstore" / "clock.py":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            of = node.value
            name = of.attr if isinstance(of, ast.Attribute) else getattr(of, "id", "")
            assert (name, node.attr) not in WALL_CLOCKS, f"{path}:{node.lineno}"
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            taken = {("time", alias.name) for alias in node.names}
            assert not taken & WALL_CLOCKS, f"{path}:{node.lineno}"


@pytest.mark.parametrize("package", BELOW)
def test_what_is_public_is_listed_and_not_much(package: str) -> None:
    module = importlib.import_module(package)
    assert len(module.__all__) <= MAX_PUBLIC_NAMES[package]
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert hasattr(module, name)


@pytest.mark.parametrize("package", BELOW)
def test_every_package_says_what_it_is_and_is_typed(package: str) -> None:
    assert importlib.import_module(package).__doc__
    assert (ROOT / package / "py.typed").exists()


def test_folders_of_tests_mirror_packages() -> None:
    for folder in (ROOT / "tests").rglob("*"):
        place = folder.relative_to(ROOT / "tests")
        if not folder.is_dir() or place.parts[0] in TEST_FOLDERS_OF_THEIR_OWN:
            continue
        if not {"__pycache__", "data", "contracts"} & set(place.parts):
            assert (ROOT / place).is_dir(), f"tests/{place} is the mirror of nothing"


def test_no_text_sends_its_reader_to_a_tracker() -> None:
    wrong = re.compile(r"\b[Ii]ssues?\s+#?\d+|\(#\d+\)|\bTODO\b|\bFIXME\b")
    here = Path(__file__).resolve()
    texts = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "Makefile", ROOT / "schema.sql"]
    for folder in (*BELOW, "tests", "docs", "examples", "benchmarks"):
        texts += [p for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".md", ".sql")]
    for path in texts:
        if path.resolve() != here:
            found = wrong.search(path.read_text(encoding="utf-8"))
            assert found is None, f"{path.relative_to(ROOT)}: {found and found[0]!r}"
