"""Options of the benchmark."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from benchmarks.cases.case import TINY, Group, Sizes
from benchmarks.registries.moorage import NAME, make_moorage
from benchmarks.registries.peers import PeerError, find_debian, list_known, parse_peer
from benchmarks.registries.registry import Registry

SHORT = (
    *("v2", "manifest-get-tag", "manifest-head-digest", "blob-get", "tags", "referrers"),
    *("image-1", "image-8", "push-large", "pull-large", "memory", "image-syncs", "bearer"),
)
"""The main cases, for a short run."""


@dataclass(frozen=True, slots=True)
class Options:
    """The parsed options."""

    registries: list[Registry]
    sizes: Sizes
    rounds: int
    cases: tuple[str, ...] | None
    minutes: float
    json: Path | None
    writes_docs: bool
    is_list: bool
    render: Path | None


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench ARGS=…", description="Compare Moorage with other registries."
    )
    add = parser.add_argument
    add(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="another registry; {port}, {data} and {config:FILE} in COMMAND are replaced",
    )
    add("--peers", type=Path, metavar="DIR", help="run zot, olareg and distribution3 in DIR")
    add("--no-debian", action="store_true", help="leave out Debian's docker-registry")
    add("--cases", metavar="NAMES", help="names of cases or groups, separated by commas")
    add("--short", action="store_true", help="only the main cases")
    add("--rounds", type=int, default=3, help="samples of each case (default 3)")
    add("--tiny", action="store_true", help="tiny sizes, to see whether all cases work")
    add("--minutes", type=float, default=40, help="start no case after this time (default 40)")
    add("--json", type=Path, metavar="FILE", help="write all samples to FILE")
    add("--write-docs", action="store_true", help="write the table to docs/operate/performance.md")
    add(
        "--render", type=Path, metavar="FILE", help="measure nothing: show the table of a JSON file"
    )
    add("--list", action="store_true", help="print the names of all cases")
    for each in fields(Sizes):
        kind = type(each.default)
        add(
            f"--{each.name.replace('_', '-')}",
            type=kind,
            metavar="N",
            help=f"default {each.default}",
        )
    return parser


def parse(arguments: Sequence[str]) -> Options:
    """Return the options. Exits with 2 if they are wrong."""
    parser = make_parser()
    given = parser.parse_args(arguments)
    try:
        registries = [] if given.render else _list_registries(given)
    except PeerError as error:
        parser.error(str(error))
    names = [each.name for each in registries]
    if len(set(names)) < len(names):
        parser.error(f"two registries have the same name: {', '.join(names)}")
    sizes = TINY if given.tiny else Sizes()
    chosen = {
        each.name: value
        for each in fields(Sizes)
        if (value := getattr(given, each.name)) is not None
    }
    cases = tuple(given.cases.split(",")) if given.cases else None
    return Options(
        registries=registries,
        sizes=replace(sizes, **chosen),
        rounds=given.rounds,
        cases=cases or (SHORT if given.short else None),
        minutes=given.minutes,
        json=given.json,
        writes_docs=given.write_docs,
        is_list=given.list,
        render=given.render,
    )


def _list_registries(given: argparse.Namespace) -> list[Registry]:
    """Return Moorage and its peers."""
    registries = [make_moorage(NAME)]
    if not (given.no_debian or given.list):
        registries.append(find_debian())
    if given.peers:
        registries += list_known(given.peers)
    return registries + [parse_peer(text) for text in given.peer]


def choose(groups: list[Group[Any]], names: tuple[str, ...] | None) -> list[Group[Any]]:
    """Return the groups with the cases of these names. A name can be that of a group.

    Raises PeerError for an unknown name.
    """
    if names is None:
        return groups
    known = {group.name for group in groups} | {c.name for group in groups for c in group.cases}
    if unknown := [name for name in names if name not in known]:
        raise PeerError(f"unknown cases: {', '.join(unknown)}; --list prints all names")
    chosen = []
    for group in groups:
        cases = tuple(c for c in group.cases if {c.name, group.name} & set(names))
        if cases:
            chosen.append(replace(group, cases=cases))
    return chosen
