"""Versions in tags, their order, and the last ones of each minor version."""

import random

import pytest

from registry.oci.versions import Version, find_last

# The order of Semantic Versioning 2.0.0, section 11, and similar cases.
ORDER = [
    "0.9.10",
    "1.0.0-1",
    "1.0.0-2",
    "1.0.0-11",
    "1.0.0--",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1-0",
    "1.0.1",
    "1.0.10",
    "1.1.0-0.3.7",
    "1.1.0",
    "1.10.0",
    "2.0.0",
]
OTHERS = [
    "latest",
    "1",
    "1.2",
    "v1.2",
    "1.2.3.4",
    "01.2.3",
    "1.02.3",
    "1.2.03",
    "1.2.3-01",
    "1.2.3-",
    "1.2.3-a..b",
    "1.2.3_4",
    "V1.2.3",
    "vv1.2.3",
    "app-1.2.3",
    "1.2.3-\u0661",
    "1.2.3\n",
    "",
]


def read(text: str) -> Version:
    version = Version.find(text)
    assert version is not None, text
    return version


def test_versions_come_in_the_order_of_the_specification() -> None:
    shuffled = random.Random(1).sample(ORDER, len(ORDER))
    assert sorted(shuffled, key=read) == ORDER
    assert [read(f"v{text}") for text in ORDER] == [read(text) for text in ORDER]
    assert [text for text in ORDER if read(text).is_release] == [t for t in ORDER if "-" not in t]


@pytest.mark.parametrize("text", OTHERS)
def test_what_is_no_version(text: str) -> None:
    assert Version.find(text) is None


def last(n: int, *texts: str) -> list[str]:
    found = find_last([read(text) for text in texts], n)
    return [text for text in texts if read(text) in found]


def test_the_last_of_each_minor_version() -> None:
    assert last(1, "1.0.0", "1.0.1", "1.1.0", "2.0.0") == ["1.0.1", "1.1.0", "2.0.0"]
    assert last(2, "1.0.10", "1.0.9", "1.0.2") == ["1.0.10", "1.0.9"]
    # Two names of one version count once.
    assert last(2, "v1.0.3", "1.0.3", "1.0.2", "1.0.1") == ["v1.0.3", "1.0.3", "1.0.2"]


def test_pre_releases_take_no_place_of_a_release() -> None:
    assert last(1, "1.0.0", "1.0.1-rc.1", "1.0.1-rc.2") == ["1.0.0", "1.0.1-rc.2"]
    assert last(1, "1.0.1", "1.0.1-rc.1", "1.0.0-rc.9") == ["1.0.1"]
    assert last(2, "1.4.0-rc.1", "1.4.0-rc.2", "1.4.0-rc.3") == ["1.4.0-rc.2", "1.4.0-rc.3"]
