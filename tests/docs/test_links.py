"""Every link of the docs leads somewhere, and no page tells where it was written."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted([*(REPOSITORY / "docs").rglob("*.md"), REPOSITORY / "README.md"])

_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+?)\s*$", re.MULTILINE)
_MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|home|root|Users|tmp|mnt)/\S*")
_INDEX = REPOSITORY / "docs" / "index.md"


def page_id(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


@cache
def prose(page: Path) -> str:
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in _HEADING.findall(prose(page)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = 1
        unique = anchor
        while unique in found:
            unique, number = f"{anchor}-{number}", number + 1
        found.add(unique)
    return frozenset(found)


def internal_links(page: Path) -> list[str]:
    return [link for link in _LINK.findall(prose(page)) if not re.match(r"[a-z]+:", link)]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_internal_link_and_anchor_resolves(page: Path) -> None:
    broken = []
    for link in internal_links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        missing_anchor = anchor and target.suffix == ".md" and target.is_file() and anchor not in anchors(target)
        if not target.exists() or missing_anchor:
            broken.append(link)

    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_no_page_contains_paths_of_the_machine_it_was_written_on(page: Path) -> None:
    assert _MACHINE_PATH.findall(page.read_text(encoding="utf-8")) == []


def test_the_index_leads_to_every_page() -> None:
    linked = {(_INDEX.parent / link.partition("#")[0]).resolve() for link in internal_links(_INDEX)}
    decisions = _INDEX.parent / "decisions"

    forgotten = [page for page in PAGES if page.is_relative_to(_INDEX.parent) and page not in linked | {_INDEX}]

    assert [page_id(page) for page in forgotten if not page.is_relative_to(decisions)] == []
    assert decisions in linked
