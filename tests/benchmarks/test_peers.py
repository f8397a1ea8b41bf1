"""Command templates of other registries."""

from pathlib import Path

import pytest

from benchmarks.cases.case import Sizes
from benchmarks.groups import list_groups
from benchmarks.options import SHORT, choose, parse
from benchmarks.registries.peers import PeerError, guess_layout, list_known, parse_peer
from benchmarks.registries.registry import Layout, Place


def test_the_port_and_the_data_directory_are_filled_in(tmp_path: Path) -> None:
    place = Place(tmp_path, 5001)
    registry = parse_peer("olareg=olareg serve --port {port} --dir '{data}/a b'")
    assert registry.name == "olareg"
    assert registry.command(place) == [
        *("olareg", "serve", "--port", "5001", "--dir", f"{tmp_path}/data/a b"),
    ]


def test_a_configuration_is_copied_and_filled_in(tmp_path: Path) -> None:
    template = tmp_path / "zot.json"
    template.write_text('{"root": "{data}", "http": {"port": "{port}"}}')
    (tmp_path / "run").mkdir()
    place = Place(tmp_path / "run", 5001)
    registry = parse_peer(f"zot=zot serve {{config:{template}}}")
    assert registry.command(place) == ["zot", "serve", str(tmp_path / "run" / "zot.json")]
    written = (tmp_path / "run" / "zot.json").read_text()
    assert written == f'{{"root": "{tmp_path}/run/data", "http": {{"port": "5001"}}}}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zot", "write NAME="),
        ("=zot {port}", "write NAME="),
        ("zot=zot serve", "neither"),
    ],
)
def test_incomplete_templates_are_refused(text: str, message: str) -> None:
    with pytest.raises(PeerError, match=message):
        parse_peer(text)


def test_known_programs_of_a_folder_are_found(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="has none of zot, olareg, distribution3"):
        list_known(tmp_path)
    (tmp_path / "olareg").touch()
    [found] = list_known(tmp_path)
    assert found.command(Place(tmp_path, 5001))[0] == str(tmp_path / "olareg")


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("zot-nightly", Layout.OCI),
        ("distribution3", Layout.DISTRIBUTION),
        ("docker-registry", Layout.DISTRIBUTION),
        ("harbor", Layout.UNKNOWN),
    ],
)
def test_the_name_says_how_to_fill_a_registry(name: str, layout: Layout) -> None:
    assert guess_layout(name) is layout


def test_cases_are_chosen_by_their_name_or_their_group() -> None:
    groups = list_groups([], Sizes())
    chosen = choose(groups, ("blob-get", "pages"))
    assert [(g.name, len(g.cases)) for g in chosen] == [("main", 1), ("pages", 4)]
    assert choose(groups, SHORT)
    with pytest.raises(PeerError, match="unknown cases: blob"):
        choose(groups, ("blob", "pages"))


def test_names_of_cases_are_unique() -> None:
    names = [case.name for group in list_groups([], Sizes()) for case in group.cases]
    assert len(set(names)) == len(names)


def test_options_choose_registries_and_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    options = parse(["--no-debian", "--peer", "x=x {port}", "--tiny", "--tags", "70", "--short"])
    assert [each.name for each in options.registries] == ["Moorage", "x"]
    assert (options.sizes.tags, options.sizes.large_mib) == (70, 8)
    assert options.cases == SHORT
    with pytest.raises(SystemExit):
        parse(["--no-debian", "--peer", "Moorage=x {port}"])
    assert "same name" in capsys.readouterr().err
