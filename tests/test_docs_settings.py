"""The page of the settings has one entry for each, with its default, and no other entries."""

import re
import tomllib
from pathlib import Path

import pytest

from registry.config import FILE_KEYS, SETTINGS

PAGE = (Path(__file__).parent.parent / "docs" / "reference" / "configuration.md").read_text()
ENTRY = re.compile(r"^### `(?P<key>[^`]+)`\n\nDefault: `(?P<default>[^`]+)`\n\n[\w`]", re.MULTILINE)


def test_the_entries_are_the_settings() -> None:
    assert [entry["key"] for entry in ENTRY.finditer(PAGE)] == list(SETTINGS)


def test_no_heading_is_left_out_of_the_comparison() -> None:
    assert len(ENTRY.findall(PAGE)) == PAGE.count("\n###")


@pytest.mark.parametrize("key", SETTINGS)
def test_the_documented_default_is_the_default(key: str) -> None:
    documented = {entry["key"]: entry["default"] for entry in ENTRY.finditer(PAGE)}
    setting = SETTINGS[key]
    value = tomllib.loads(f"value = {documented[key]}")["value"]
    assert setting.kind.from_toml(value) == setting.default


def test_the_sections_are_headings_in_their_order() -> None:
    sections = list(dict.fromkeys(key.partition(".")[0] for key in SETTINGS))
    assert re.findall(r"^## \[(\w+)\]$", PAGE, re.MULTILINE) == sections


def test_settings_that_the_text_mentions_exist() -> None:
    sections = {key.partition(".")[0] for key in SETTINGS}
    mentioned = re.findall(rf"`((?:{'|'.join(sections)})\.\w+)\b", PAGE)
    assert set(mentioned) <= SETTINGS.keys() | FILE_KEYS.keys()


def test_the_settings_that_have_files_are_listed() -> None:
    listed = re.findall(r"^- `([\w.]+)`$", PAGE, re.MULTILINE)
    assert listed == list(FILE_KEYS.values())
