"""The documentation covers each endpoint and command, and the files that it names exist."""

import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from registry import metrics
from registry.api.admin.openapi import build_document
from registry.api.v2.routes import ROUTES
from registry.cli.kit.parsing import Parser
from registry.cli.main import build_parser
from registry.operations.table import BASE, OPERATIONS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"

PLACEHOLDER = re.compile(r"\b(NOUN|NAME|CAPABILITY|NNNN_NAME)\b")
"""The parts of paths in CONTRIBUTING.md that stand for any name."""


COMMON = {"--help", "--config", "--data", "--json", "--url", "--user", "--ca-file"}


def list_commands(parser: Parser) -> Iterator[Parser]:
    """Yield the parsers of all commands below the parser."""
    if not parser.commands:
        yield parser
    for each in parser.commands.values():
        yield from list_commands(each)


def list_options(command: Parser) -> set[str]:
    """Return the long options of a command, without those that most commands have."""
    options = {option for each in command.arguments for option in each.option_strings}
    return {each for each in options if each.startswith("--")} - COMMON


def test_every_command_has_a_section_with_its_options() -> None:
    pages = ["commands", "commands-content", "commands-access", "commands-rules"]
    text = "".join((REFERENCE / f"{page}.md").read_text() for page in pages)
    sections = re.split(r"^## `(.+)`$", text, flags=re.MULTILINE)[1:]
    documented = dict(zip(sections[::2], sections[1::2], strict=True))
    commands = {each.prog: list_options(each) for each in list_commands(build_parser())}
    assert sorted(documented) == sorted(commands)
    known = COMMON.union(*commands.values())
    for command, section in documented.items():
        named = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", section))
        own = commands[command] - {"--password-stdin"}  # described once, for all commands
        assert own <= named, f"{command} lacks {own - named}"
        assert named <= known | {"--version"}, f"{command} names {named - known}"


def test_json_of_every_command_is_documented() -> None:
    text = (REFERENCE / "json-output.md").read_text()
    rows = re.findall(r"^\| (`.+?) \| (.+) \|$", text, re.MULTILINE)
    documented = [f"moorage {each}" for names, _ in rows for each in re.findall(r"`(.+?)`", names)]
    printing = [
        each.prog
        for each in list_commands(build_parser())
        if any("--json" in argument.option_strings for argument in each.arguments)
    ]
    assert sorted(documented) == sorted(printing)
    objects = {name for _, document in rows for name in re.findall(r"\*(\w+)\*", document)}
    schemas = build_document()["components"]["schemas"]
    assert objects <= schemas.keys(), objects - schemas.keys()


def test_every_endpoint_is_listed_with_its_methods() -> None:
    text = (REFERENCE / "http-api.md").read_text()
    rows = re.findall(r"^\| `(/[^`]*)` \| ([A-Z, ]+) \|", text, re.MULTILINE)
    documented = {path: sorted(methods.split(", ")) for path, methods in rows}
    routed = {entry.path.replace(":path", ""): sorted(entry.methods) for entry in ROUTES}
    beside = ("/", "/healthz", "/readyz", "/metrics", "/.well-known/jwks.json")
    token = {"/token": ["GET", "POST"]}
    assert documented == routed | token | {path: ["GET", "HEAD"] for path in beside}


def test_every_operation_of_the_admin_api_is_listed_with_who_may() -> None:
    text = (REFERENCE / "admin-api.md").read_text()
    rows = re.findall(r"^\| ([A-Z]+) \| `(/[^`]*)` \| .+ \| (.+) \|$", text, re.MULTILINE)
    assert rows == [(o.method, BASE + o.path, o.permission.description) for o in OPERATIONS]


def test_files_named_in_the_docs_exist() -> None:
    for page in [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        named = re.findall(
            r"`((?:docs|tests|registry|storage|migrations|deploy|benchmarks)/[\w./-]+)`",
            page.read_text(),
        )
        for name in named:
            # The wheel installs the migrations as registry/migrations.
            if name != "registry/migrations" and not PLACEHOLDER.search(name):
                assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_the_changelog_starts_with_this_version() -> None:
    [newest, *_] = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest == version("moorage")


def list_anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub makes them."""
    lines = [line for line in page.read_text().splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in lines}


def test_links_between_pages_lead_somewhere() -> None:
    count = 0
    for page in sorted(DOCS.rglob("*.md")):
        for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
            target, _, heading = link.partition("#")
            found = page.parent / target if target else page
            assert found.is_file(), f"{page.name} links to {link}"
            assert not heading or heading in list_anchors(found), f"{page.name} links to {link}"
            count += 1
    assert count > 60


def test_headings_have_a_blank_line_before_and_after() -> None:
    """Some renderers treat a heading without blank lines as part of the paragraph."""
    for page in sorted(DOCS.rglob("*.md")):
        lines = re.sub(r"(?ms)^```.*?^```$", "", page.read_text()).split("\n")
        for number, line in enumerate(lines):
            if line.startswith("#"):
                around = [*lines[max(0, number - 1) : number], *lines[number + 1 : number + 2]]
                assert not any(around), f"{page.name}: {line}"


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs" / "adr").rglob("*.md"))
    assert numbers == list(range(1, len(numbers) + 1))


def test_every_metric_is_documented() -> None:
    text = (DOCS / "operate" / "metrics.md").read_text()
    for metric in metrics.REGISTRY.collect():
        is_counter = metric.type == "counter"
        name = f"{metric.name}_total" if is_counter else metric.name
        assert f"`{name}`" in text, f"{name} is not in docs/operate/metrics.md"
    exported = {f"{each.name}_total" for each in metrics.REGISTRY.collect()}
    exported |= {each.name for each in metrics.REGISTRY.collect()}
    named = set(re.findall(r"moorage_\w+", text))
    assert named <= exported, named - exported
