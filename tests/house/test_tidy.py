"""House rules that a linter does not know: sizes, docstrings, room pages, and words that have no place here."""

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
ROOMS = sorted(
    path for path in (ROOT / "src/tokenworks").iterdir() if path.is_dir() and (path / "__init__.py").exists()
)
# The two process edges, where anything unforeseen becomes one log line and an exit code or a 500.
EDGES: frozenset[str] = frozenset()
Function = ast.FunctionDef | ast.AsyncFunctionDef


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[Function]:
    tree = ast.parse(path.read_text("utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def size(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=relative)
def test_a_file_has_one_idea_and_at_most_400_lines(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=relative)
def test_no_function_is_longer_than_70_lines(path: Path) -> None:
    assert [f"{f.name}: {size(f)}" for f in functions(path) if size(f) > 70] == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


def test_the_median_function_is_short() -> None:
    assert statistics.median(size(f) for path in SOURCES for f in functions(path)) <= 12


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_broad_except(path: Path) -> None:
    broad = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}))
    ]
    assert broad == [] or relative(path) in EDGES


@pytest.mark.parametrize("path", [path for path in SOURCES + TESTS if path != Path(__file__)], ids=relative)
def test_nothing_is_left_for_later_in_comments(path: Path) -> None:
    assert re.findall(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b", path.read_text("utf-8")) == []


@pytest.mark.parametrize("path", [path for path in TESTS if path != Path(__file__)], ids=relative)
def test_tests_neither_sleep_nor_patch_nor_skip(path: Path) -> None:
    banned = r"time\.sleep\(|asyncio\.sleep\([^0)]|mock\.patch|monkeypatch\.setattr|mark\.(?:skip|xfail)|importorskip"
    assert re.findall(rf"{banned}|pytest\.skip", path.read_text("utf-8")) == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_amounts_are_never_floats(path: Path) -> None:
    """A float is for seconds and ratios shown to people; names of amounts never carry one."""
    found = re.findall(r"\b(?:amount|price|cost|balance|tax|net|total)\w*\s*:\s*float", path.read_text("utf-8"))
    assert found == []


@pytest.mark.parametrize("room", ROOMS, ids=relative)
def test_every_room_has_a_page_of_at_most_60_lines(room: Path) -> None:
    page = room / "README.md"
    assert page.exists(), f"{relative(room)} has no README.md"
    assert len(page.read_text("utf-8").splitlines()) <= 60


def test_the_map_of_the_code_is_short() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text("utf-8").splitlines()) <= 250
