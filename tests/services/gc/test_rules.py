"""Settings of garbage collection."""

from pathlib import Path

import pytest

from registry.config import Settings, load, show
from registry.errors import ConfigError
from registry.services.gc.untagged import UntaggedRules, parse_rules


def read(tmp_path: Path, toml: str, **environ: str) -> Settings:
    (tmp_path / "moorage.toml").write_text(toml)
    return load(config=None, data=tmp_path, overrides={}, environ=environ)


RULES = """
[gc]
grace_period = "2h"
window = "22:00-06:00"
[[gc.rules]]
pattern = "ci/**"
untagged = "delete"
[[gc.rules]]
pattern = "**"
untagged = "keep"
"""


def test_are_read_and_shown(tmp_path: Path) -> None:
    settings = read(
        tmp_path, RULES, MOORAGE_GC__LIMIT_DELETIONS="50", MOORAGE_GC__GRACE_PERIOD="2s"
    )
    assert (settings.gc.grace_period, settings.gc.window, settings.gc.limit_deletions) == (
        2.0,
        (1320, 360),
        50,
    )
    shown = show(settings)["gc"]
    assert shown["window"] == "22:00-06:00"
    assert shown["rules"] == [
        {"pattern": "ci/**", "untagged": "delete"},
        {"pattern": "**", "untagged": "keep"},
    ]


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        ('[gc]\ngrace_period = "0s"', "gc.grace_period"),
        ('[gc]\nuntagged = "drop"', '"keep" or "delete"'),
        ('[gc]\nwindow = "22-6"', "a time window"),
        ('[gc]\nwindow = "22:00-24:01"', "a time window"),
        ('[gc]\nwindow = "06:00-06:00"', "a time window"),
        ('[gc]\nwindow = "06:60-07:00"', "a time window"),
        ('[[gc.rules]]\npattern = "a/**"', r"gc.rules\[0\]: expected a table with pattern"),
        (
            '[[gc.rules]]\npattern = "A"\nuntagged = "keep"',
            r"gc.rules\[0\].pattern: .*invalid pattern",
        ),
        ('[[gc.rules]]\npattern = "a"\nuntagged = "no"', r"gc.rules\[0\].untagged"),
        ('[[gc.rules]]\npattern = 1\nuntagged = "keep"', r"gc.rules\[0\].pattern"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, toml: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        read(tmp_path, toml)


def test_other_rules_have_another_fingerprint() -> None:
    one = parse_rules([{"pattern": "a/**", "untagged": "delete"}])
    two = parse_rules([{"pattern": "b/**", "untagged": "delete"}])
    rules = [UntaggedRules("keep", ()), UntaggedRules("delete", ()), UntaggedRules("keep", one)]
    prints = {each.fingerprint for each in [*rules, UntaggedRules("keep", two)]}
    assert len(prints) == 4
    assert UntaggedRules("keep", one).fingerprint == rules[2].fingerprint
