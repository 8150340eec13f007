"""Documents that fail the build when they fall behind: settings, refusals, decisions, links, words."""

import re
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import msgspec
import pytest
from fastapi.routing import APIRoute

from tokenworks.api import application
from tokenworks.base.config import Settings, variable
from tokenworks.core.refusals import Code

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    # Beside what is hidden, the data folder is not ours: what measurements install lies there.
    if not any(part.startswith(".") or part == "var" for part in path.relative_to(ROOT).parts)
)


def description(field: str) -> str:
    """The meaning of a setting, from its annotation; limits may be nested annotations."""
    hint = get_type_hints(Settings, include_extras=True)[field]
    while get_origin(hint) is Annotated:
        kind, *metas = get_args(hint)
        for meta in metas:
            if isinstance(meta, msgspec.Meta) and meta.description:
                return meta.description
        hint = kind
    return ""


def settings_rows() -> list[str]:
    defaults = msgspec.to_builtins(Settings())
    return [f"| `{variable(name)}` | `{defaults[name]}` | {description(name)} |" for name in Settings.__struct_fields__]


def test_every_setting_is_described() -> None:
    assert [name for name in Settings.__struct_fields__ if not description(name)] == []


def test_the_settings_page_lists_every_setting_with_its_default() -> None:
    page = (ROOT / "docs/settings.md").read_text("utf-8").splitlines()
    rows = [line for line in page if line.startswith("| `TOKENWORKS_")]
    assert rows == settings_rows(), "put these rows there:\n" + "\n".join(settings_rows())


@pytest.mark.parametrize("code", Code, ids=lambda code: code.value)
def test_every_refusal_is_documented(code: Code) -> None:
    assert f"`{code.value}`" in (ROOT / "docs/refusals.md").read_text("utf-8")


def test_every_route_of_the_management_api_is_documented_once() -> None:
    page = (ROOT / "docs/api.md").read_text("utf-8")
    routes = [route for router in application.ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    missing = [f"{method} {route.path}" for route in routes for method in route.methods]
    assert [name for name in missing if page.count(f"`{name}`") != 1] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


def test_decisions_are_numbered_and_have_their_parts() -> None:
    pages = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
    numbers = [int(page.name[:4]) for page in pages]
    assert numbers == sorted(set(numbers))
    for page in pages:
        text = page.read_text("utf-8")
        for part in ("Status", "## Context", "## Decision", "## Consequences", "## Alternatives"):
            assert part in text, f"{page.name} lacks {part}"


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"`make ([a-z]+)`", (ROOT / "README.md").read_text("utf-8")):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
