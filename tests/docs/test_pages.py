"""README and docs: links lead somewhere, `make` commands exist, and nothing stands there that nobody can check."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world.pages import PAGES, section, table_rows, without_blocks
from tests.world.repository import ROOT, read

PAGE_NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_MAKE = re.compile(r"(?:^|`)make ([a-z-]+)", re.MULTILINE)

every_page = pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)


def _anchors(page: Path) -> Iterator[str]:
    """As GitHub makes them of headings."""
    for heading in re.findall(r"^#+ (.+)$", without_blocks(page.read_text(encoding="utf-8")), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        yield re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@every_page
def test_a_link_within_the_project_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in _LINK.finditer(without_blocks(page.read_text(encoding="utf-8"))):
        target, _, anchor = link["target"].partition("#")
        if re.match(r"https?:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{link[0]}: there is no {target}"
        assert path.is_relative_to(ROOT), link[0]
        assert not anchor or anchor in set(_anchors(path)), f"{link[0]}: there is no heading for #{anchor}"


@every_page
def test_a_long_page_begins_with_a_list_of_its_sections(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    sections = re.findall(r"^## (.+)$", without_blocks(text), re.MULTILINE)
    if page.parent.name == "docs" and len(sections) > 3:
        listed = re.findall(r"^- \[(.+)\]\(#[^)]+\)$", text.split("\n## ", 1)[0], re.MULTILINE)
        assert listed == sections


@every_page
def test_what_is_said_to_stand_above_or_below_is_linked_and_does(page: Path) -> None:
    text = without_blocks(page.read_text(encoding="utf-8"))
    assert not re.search(r"[Ss]ee (?:below|above)", text), "a link finds it where it stands today"
    headings = [heading.start() for heading in re.finditer(r"^#+ .+$", text, re.MULTILINE)]
    places = dict(zip(_anchors(page), headings, strict=True))
    for link in re.finditer(r"\[(below|above)\]\(#([^)]+)\)", text):
        assert (places[link[2]] > link.start()) is (link[1] == "below"), link[0]


@every_page
def test_every_page_of_docs_can_be_reached_from_the_readme(page: Path) -> None:
    if page.parent.name == "docs":
        assert f"(docs/{page.name})" in read("README.md")


@every_page
def test_a_table_has_as_many_cells_in_every_row(page: Path) -> None:
    widths = 0
    for line in without_blocks(page.read_text(encoding="utf-8")).splitlines():
        if not line.startswith("|"):
            widths = 0
            continue
        cells = len(re.split(r"(?<!\\)\|", line)) - 2
        widths = widths or cells
        assert cells == widths, line


@every_page
def test_every_make_command_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", read("Makefile"), re.MULTILINE))
    named = set(_MAKE.findall(page.read_text(encoding="utf-8")))
    assert named <= targets, named - targets


@every_page
def test_a_backquoted_path_of_the_project_is_there(page: Path) -> None:
    folders = "dispatcher|trainer_image|portal_client|manifests|local_stack|tests|docs|benchmarks"
    for path in re.findall(rf"`((?:{folders})/[\w./*-]*)`", page.read_text(encoding="utf-8")):
        assert list(ROOT.glob(path.rstrip("/"))), f"there is no {path}"


@every_page
def test_no_speed_is_claimed_and_nothing_of_one_machine_is_named(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    # `make bench` measures; a figure here would be somebody else's machine.
    rate = r"\d[\d.,]*\s*(?:launches|requests|messages|jobs|images|rows|GB|MB|GiB|MiB)\s*(?:/s|(?:a|per) second)"
    faster = r"\d[\d.,]*\s*(?:times|x|×|%)\s*(?:as fast|faster|slower|cheaper|less|more)"
    for pattern in (rate, faster, rf"(?:/home/|/root/|/Users/|{re.escape(str(ROOT))}|/tmp/)\S*"):
        assert not re.search(pattern, text, re.IGNORECASE), re.search(pattern, text, re.IGNORECASE)


@every_page
def test_only_hosts_for_examples_and_of_other_projects_are_linked(page: Path) -> None:
    known = r"keda\.sh|(?:kueue|kind)\.sigs\.k8s\.io|airflow\.apache\.org|keepachangelog\.com|semver\.org"
    sources = r"kubernetes\.io|etcd\.io|(?:learn|azure)\.microsoft\.com|github\.com"  # of documented limits and prices
    for host in re.findall(r"https?://([\w.-]+)", page.read_text(encoding="utf-8")):
        example = host.endswith(("example.com", ".core.windows.net", ".svc")) or host in ("localhost", "127.0.0.1")
        assert example or re.fullmatch(f"{known}|{sources}", host), host


def test_every_folder_of_the_code_has_its_line_in_the_house() -> None:
    house = section(read("docs/architecture.md"), "The house")
    listed = {name for row in table_rows(house) for name in re.findall(r"`([\w./]+)`", row[0] + row[1])}
    for package in ("dispatcher", "trainer_image", "local_stack"):
        folders = {path.parent for path in (ROOT / package).rglob("*.py")} - {ROOT / package}
        files = {path.name for path in (ROOT / package).glob("[a-z]*.py")}
        assert {f"{folder.name}/" for folder in folders} | files <= listed, package
