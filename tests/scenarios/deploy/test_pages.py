"""The pages for operators: settings, commands, files and versions that they name exist."""

import argparse
import re

import pytest

from registry.cli.main import build_parser
from registry.config import FILE_KEYS, SETTINGS
from tests.scenarios.deploy.naming import list_unknown
from tests.support.servers.server import ROOT

PAGES = ["deployment", "sizing", "backup", "upgrade", "failures"]
SECTIONS = sorted({key.partition(".")[0] for key in SETTINGS})


def read(page: str) -> str:
    return (ROOT / "docs" / "operate" / f"{page}.md").read_text()


def is_command(words: list[str]) -> bool:
    """Return whether `moorage WORD WORD …` begins with a command."""
    parser = build_parser()
    for word in words:
        groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        if not groups:
            break
        if word not in groups[0].choices:
            return False
        parser = groups[0].choices[word]
    return True


@pytest.mark.parametrize("page", PAGES)
def test_settings_exist(page: str) -> None:
    named = set(re.findall(rf"`((?:{'|'.join(SECTIONS)})\.\w+)", read(page)))
    assert named <= {*SETTINGS, *FILE_KEYS}
    assert list_unknown(read(page)) == set()


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page: str) -> None:
    named = re.findall(r"(?:`|bin/|-- |run --rm )moorage ([a-z][a-z ]*)", read(page))
    assert [each for each in named if not is_command(each.split())] == []


def test_the_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [page for page in PAGES if f"docs/operate/{page}.md" not in readme] == []


@pytest.mark.parametrize("page", PAGES)
def test_tables_are_whole(page: str) -> None:
    """An extra bar in a cell breaks the row."""
    width = 0
    for line in read(page).splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        bars = len(re.sub(r"\\\|", "", line).split("|"))
        width = width or bars
        assert bars == width, line
