"""`moorage mirror evict`, and the size of a mirror."""

import pytest

from tests.cli.moorage import Moorage

pytestmark = pytest.mark.timeout(120)

UPSTREAM = ["--upstream", "https://registry.example.org"]


def test_a_mirror_has_a_size_and_a_limit(moorage: Moorage) -> None:
    limits = ["--max-size", "2048MiB", "--max-age", "90d"]
    moorage.run("mirror", "add", "team", *UPSTREAM, *limits)
    shown = moorage.json("mirror", "show", "team")
    assert (shown["max_size"], shown["max_age"]) == ("2GiB", "90d")
    assert (shown["usage"]["bytes"], shown["usage"]["measured_at"]) == (None, None)
    assert "not measured yet" in moorage.run("mirror", "show", "team").stdout
    moorage.run("mirror", "set", "team", "--max-size", "", "--max-age", "forever")
    shown = moorage.json("mirror", "show", "team")
    assert (shown["max_size"], shown["max_age"]) == ("", "forever")
    assert "is not a size" in moorage.fails("mirror", "set", "team", "--max-size", "50")


def test_images_are_evicted_by_hand(moorage: Moorage) -> None:
    moorage.run("mirror", "add", "team", *UPSTREAM)
    assert moorage.run("mirror", "evict", "--all").stdout == "Evicted 0 images, 0B.\n"
    assert moorage.json("mirror", "evict", "team/app", "--dry-run") == {"evicted": [], "kept": []}
    for arguments, words in (
        ([], "give either"),
        (["team/app", "--all"], "give either"),
        (["other/app:1"], "is not below the prefix of a mirror"),
        (["team/app:1"], "no repository team/app"),
    ):
        assert words in moorage.fails("mirror", "evict", *arguments)
