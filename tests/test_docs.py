"""The documentation covers each endpoint and command, and the files that it names exist."""

import argparse
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from registry.api.admin.table import BASE, OPERATIONS
from registry.api.v2.routes import ROUTES
from registry.cli.main import build_parser

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def list_commands(parser: argparse.ArgumentParser, name: str) -> Iterator[str]:
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not groups:
        yield name
    for group in groups:
        for word, command in group.choices.items():
            yield from list_commands(command, f"{name} {word}")


def test_every_command_has_a_section_and_every_section_a_command() -> None:
    text = (DOCS / "commands.md").read_text()
    documented = re.findall(r"^## `(.+)`$", text, re.MULTILINE)
    assert sorted(documented) == sorted(list_commands(build_parser(), "moorage"))


def test_every_endpoint_is_listed_with_its_methods() -> None:
    text = (DOCS / "http-api.md").read_text()
    rows = re.findall(r"^\| `(/[^`]*)` \| ([A-Z, ]+) \|", text, re.MULTILINE)
    documented = {path: sorted(methods.split(", ")) for path, methods in rows}
    routed = {entry.path.replace(":path", ""): sorted(entry.methods) for entry in ROUTES}
    beside = ("/", "/healthz", "/readyz", "/metrics", "/.well-known/jwks.json")
    token = {"/token": ["GET", "POST"]}
    assert documented == routed | token | {path: ["GET", "HEAD"] for path in beside}


def test_every_operation_of_the_admin_api_is_listed_with_who_may() -> None:
    text = (DOCS / "admin-api.md").read_text()
    rows = re.findall(r"^\| ([A-Z]+) \| `(/[^`]*)` \| .+ \| (.+) \|$", text, re.MULTILINE)
    assert rows == [(o.method, BASE + o.path, o.who.words) for o in OPERATIONS]


def test_files_named_in_the_docs_exist() -> None:
    for page in [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        named = re.findall(
            r"`((?:docs|tests|registry|storage|migrations|deploy|benchmarks)/[\w./-]+)`",
            page.read_text(),
        )
        for name in named:
            if name != "registry/migrations":  # The wheel installs the migrations in this path.
                assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_the_changelog_starts_with_this_version() -> None:
    [newest, *_] = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest == version("moorage")


def test_headings_have_a_blank_line_before_and_after() -> None:
    """Some renderers treat a heading without blank lines as part of the paragraph."""
    for page in sorted(DOCS.rglob("*.md")):
        lines = re.sub(r"(?ms)^```.*?^```$", "", page.read_text()).split("\n")
        for number, line in enumerate(lines):
            if line.startswith("#"):
                around = [*lines[max(0, number - 1) : number], *lines[number + 1 : number + 2]]
                assert not any(around), f"{page.name}: {line}"
