"""Durations, sizes, endpoints, and the printed form of a database URL."""

from ipaddress import ip_network
from typing import Literal, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from registry.database_url import DatabaseUrl
from registry.errors import ConfigError
from registry.units import (
    Count,
    ExternalUrl,
    Flag,
    Limit,
    Listen,
    Networks,
    Origins,
    SettingType,
    Timeout,
    Url,
    choice,
    format_duration,
    format_size,
    is_loopback,
    mask_database_url,
    parse_duration,
    parse_endpoint,
    parse_size,
    round_size,
)


def kind_of(annotated: object) -> SettingType:
    kind = get_args(annotated)[1]
    assert isinstance(kind, SettingType)
    return kind


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("200ms", 0.2),
        ("2s", 2.0),
        ("5m", 300.0),
        ("24h", 86_400.0),
        ("90d", 7_776_000.0),
        ("0s", 0.0),
        ("36500d", 36_500 * 86_400.0),
    ],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "30", "s", "-1s", "1.5s", "1 s", "1s ", "1h30m", "1S", "1sec", "1w", "٣s", "1s\n"),
        *("36501d", "9" * 19 + "ms", "9" * 5000 + "s"),
    ],
)
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.2, "200ms"), (1.5, "1500ms"), (90.0, "90s"), (120.0, "2m"), (86_400.0, "1d")],
)
def test_durations_are_written_in_the_largest_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(min_value=0, max_value=10**12), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_a_written_duration_reads_the_same(count: int, unit: str) -> None:
    try:
        seconds = parse_duration(f"{count}{unit}")
    except ValueError:
        assert count > 36_500
    else:
        assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0B", 0),
        ("512B", 512),
        ("64KiB", 65_536),
        ("64MiB", 67_108_864),
        ("5GiB", 5_368_709_120),
        ("1TiB", 1_099_511_627_776),
        ("9223372036854775807B", 2**63 - 1),
    ],
)
def test_sizes_are_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "64", "64MB", "64M", "64mib", "1.5GiB", "-1B", "64 MiB", "9223372036854775808B"]
)
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_size(text)


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_a_written_size_reads_the_same(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0B"), (1023, "1023B"), (1 << 20, "1MiB"), (1 << 50, "1024TiB")]
)
def test_sizes_are_written_in_the_largest_unit(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (1023, "1023B"), (1024, "1.0KiB"), (1_600_000, "1.5MiB"), (5 << 50, "5120.0TiB")],
)
def test_rounded_sizes_are_for_people(size: int, text: str) -> None:
    assert round_size(size) == text


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:5000", ("127.0.0.1", 5000)),
        ("[::1]:5000", ("::1", 5000)),
        (":5000", ("", 5000)),
        ("localhost:0", ("localhost", 0)),
        ("registry_1.example.org:65535", ("registry_1.example.org", 65535)),
    ],
)
def test_endpoints(text: str, endpoint: tuple[str, int]) -> None:
    assert parse_endpoint(text) == endpoint
    assert kind_of(Listen).from_text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "5000", "localhost", "localhost:", "::1:5000", "[::1]", "[1]:5000", "[::g]:1"),
        *("*:5000", "a b:1", "host:65536", "host:-1", "host:5000\n", "http://host:5000", "host:٣"),
    ],
)
def test_other_endpoints_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_endpoint(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "LOCALHOST"])
def test_only_this_machine_reaches(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "::", "10.0.0.1", "0", "127.0.0.1.example.org", "localhost.example.org"]
)
def test_others_reach(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("", ""),
        ("sqlite:////srv/moorage.db", "sqlite:////srv/moorage.db"),
        ("sqlite:////srv/a:b@c.db?timeout=5", "sqlite:////srv/a:b@c.db?timeout=5"),
        ("postgresql://db/moorage", "postgresql://db/moorage"),
        ("postgresql://me@db:5432/moorage", "postgresql://me@db:5432/moorage"),
        ("postgresql+psycopg://me:KEY@db/moorage", "postgresql+psycopg://me:***@db/moorage"),
        ("postgresql://me:KEY@[::1]:5432/moorage", "postgresql://me:***@[::1]:5432/moorage"),
        ("postgres://me:KEY@db/moorage", "postgres://me:***@db/moorage"),
        ("postgresql://me:KEY@h1:1,h2/moorage", "postgresql://me:***@h1:1,h2/moorage"),
        ("postgresql://:KEY@/moorage", "postgresql://:***@/moorage"),
        ("postgresql://db/m?sslmode=require&x=KEY", "postgresql://db/m?sslmode=require&***"),
    ],
)
def test_a_database_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert mask_database_url(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "KEY",
        "me:KEY@db",
        "mysql://me:KEY@db/moorage",
        "postgresql:me:KEY@db",
        "postgresql:/me:KEY@db/moorage",
        "postgresql://me:KEY/moorage",
        "postgresql://me:a@KEY@db/moorage",
        "postgresql://me:a/KEY@db/moorage",
        "postgresql://me:a#KEY@db/moorage",
        "postgresql://me:a?KEY@db/moorage",
        "postgresql://m/e:KEY@db/moorage",
        "postgresql:///me:KEY@db/moorage",
        "postgresql://me:KEY@db:port/moorage",
        "postgresql://db/moorage?password=KEY",
        "postgresql://db/moorage?user=me&PASSWORD=KEY",
        "postgresql://db/moorage?p%61ssword=KEY",
        "postgresql://db/moorage?host=db;password=KEY",
        "postgresql://db/moorage?host=a?password=KEY",
        "postgresql://db/moorage?sslmode=require#password=KEY",
        "postgresql://me:KEY\n@db/moorage",
        " postgresql://me:KEY@db/moorage",
        "sqlite:///file.db?password=KEY",
    ],
)
def test_nothing_doubtful_of_a_database_url_is_shown(url: str) -> None:
    assert "***" in mask_database_url(url)
    assert "KEY" not in mask_database_url(url)


@given(st.text("/?#@:&=[]1a\n", max_size=5), st.text("/?#@:&=[]1a\n", max_size=5))
@example("1/", "?")
@settings(max_examples=1000)
def test_a_password_never_shows_whatever_stands_around_it(before: str, after: str) -> None:
    assert "KEY" not in mask_database_url(f"postgresql://me:{before}KEY{after}@db/moorage")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ""),
        ("https://registry.example.org", "https://registry.example.org"),
        ("http://localhost:5000/", "http://localhost:5000"),
        ("https://[::1]:5000", "https://[::1]:5000"),
        ("https://a/registry", "https://a/registry"),
        ("https://a:444/b/registry-2/", "https://a:444/b/registry-2"),
        ("https://a/v2x", "https://a/v2x"),
    ],
)
def test_external_urls(text: str, value: str) -> None:
    assert kind_of(ExternalUrl).from_text(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *("registry.example.org", "ftp://a", "https://", "https://a/v2", "https://a?x"),
        *("https://a#x", "https://me@a", "https://a:70000", "https://a\n", "https://[::g]"),
        *("https://a//", "https://a/b//c", "https://a/../b", "https://a/%2e", "https://a/b?x"),
        *("https://a/v2/b", "https://a/api", "https://a/token/", "https://a/b\n"),
    ],
)
def test_other_external_urls_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        kind_of(ExternalUrl).from_text(text)


def test_origins_of_pages() -> None:
    origins = kind_of(Origins)
    assert origins.from_text("https://UI.example.org, http://localhost:8080") == (
        "https://ui.example.org",
        "http://localhost:8080",
    )
    assert origins.from_toml(["*"]) == ("*",)
    for text in ("ui.example.org", "https://ui.example.org/", "https://*.example.org", "null"):
        with pytest.raises(ValueError, match=r"."):
            origins.from_text(text)


def test_networks_from_text_and_toml() -> None:
    expected = (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    assert kind_of(Networks).from_text("10.0.0.0/8, ::1") == expected
    assert kind_of(Networks).from_toml(["10.0.0.0/8", "::1"]) == expected
    assert kind_of(Networks).from_text("") == ()
    assert kind_of(Networks).show(expected) == ["10.0.0.0/8", "::1/128"]


@pytest.mark.parametrize("value", ["10.0.0.0/8", [5], ["10.0.0.1/8"], ["proxy"], [["::1"]]])
def test_other_networks_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        kind_of(Networks).from_toml(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("1", True), ("YES", True), ("false", False), ("0", False), ("no", False)],
)
def test_flags_from_text(text: str, value: bool) -> None:
    assert kind_of(Flag).from_text(text) is value


@pytest.mark.parametrize("text", ["", "on", "2", "truee"])
def test_other_flags_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        kind_of(Flag).from_text(text)


def test_toml_types_are_not_mixed_up() -> None:
    for kind, value in [
        (kind_of(Count), True),
        (kind_of(Count), "4"),
        (kind_of(Count), 4.0),
        (kind_of(Flag), 1),
        (kind_of(Flag), "true"),
        (kind_of(Timeout), 30),
        (kind_of(DatabaseUrl), ["sqlite://"]),
    ]:
        with pytest.raises(ValueError, match="is not a TOML"):
            kind.from_toml(value)


@pytest.mark.parametrize("text", ["0", "-1", "many", "", "1.0"])
def test_counts_are_above_zero(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        kind_of(Count).from_text(text)


def test_a_limit_may_be_zero_and_not_less() -> None:
    assert kind_of(Limit).from_text("0") == 0
    assert kind_of(Limit).from_toml(50) == 50
    for text in ("-1", "many", "", "1.0"):
        with pytest.raises(ValueError, match=r"."):
            kind_of(Limit).from_text(text)


def test_a_timeout_is_above_zero() -> None:
    assert kind_of(Timeout).from_text("1ms") == 0.001
    with pytest.raises(ValueError, match="not positive"):
        kind_of(Timeout).from_text("0s")


def test_words_are_a_choice() -> None:
    kind = choice(Literal["", "text", "json"])
    assert kind.expected == '"text" or "json"'
    assert kind.from_text("json") == "json"
    with pytest.raises(ValueError, match="xml"):
        kind.from_text("xml")


@pytest.mark.parametrize("url", ["postgres:me:KEY@db/x", "mysql://db", "file.db", "sqlite:x"])
def test_a_refused_database_url_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match=r".") as refused:
        kind_of(DatabaseUrl).from_text(url)
    assert url not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://example.org",
        "https://example.org/",
        "https://example.org:8443/keys?app=1",
        "http://[::1]:80/keys",
    ],
)
def test_urls(text: str) -> None:
    assert kind_of(Url).from_text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "example.org",
        "//example.org",
        "ftp://example.org",
        "https://",
        "https:///keys",
        "https://user@example.org/",
        "https://user:word@example.org/",
        "https://example.org:65536/",
        "https://[::1/",
        "https://[::g]/",
        "https://example.org/a b",
        "https://example.org/\n",
        "https://example.org/\u00e9",
        "https://example.org?app=1",
    ],
)
def test_other_urls_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        kind_of(Url).from_text(text)


def test_a_kind_that_is_json_is_so_written_outside_of_files() -> None:
    kind = SettingType("tables", list, tuple, json=True)
    assert kind.from_text('[{"a": "b,c"}]') == ({"a": "b,c"},)
    for text in ("", "a,b", "{}", "[" * 100_000):
        with pytest.raises(ValueError, match=r"."):
            kind.from_text(text)
