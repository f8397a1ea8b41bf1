"""The `[[auth.oidc]]` tables, and the claims that a rule accepts for its robot."""

import contextlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.auth.oidc_settings import OidcRule, parse_issuers
from registry.config import SETTINGS, Settings, load, show
from registry.errors import ConfigError

GITHUB: dict[str, Any] = {
    "issuer": "https://token.actions.githubusercontent.com",
    "audience": "https://registry.example.org",
    "rules": [
        {"robot": "release", "claims": {"repository": "org/app", "ref": "refs/tags/v*"}},
        {"robot": "ci", "claims": {"repository": ["org/app", "org/lib"]}},
    ],
}
GITLAB = {
    "issuer": "https://gitlab.example.org",
    "jwks_file": "gitlab.json",
    "rules": [{"robot": "ci", "claims": {"project_path": "team/app", "ref_protected": "true"}}],
}
TOML = """
[[auth.oidc]]
issuer = "https://token.actions.githubusercontent.com"
audience = "https://registry.example.org"

[[auth.oidc.rules]]
robot = "release"
claims = { repository = "org/app", ref = "refs/tags/v*" }

[[auth.oidc.rules]]
robot = "ci"
claims = { repository = ["org/app", "org/lib"] }

[[auth.oidc]]
issuer = "https://gitlab.example.org"
jwks_file = "gitlab.json"

[[auth.oidc.rules]]
robot = "ci"
claims = { project_path = "team/app", ref_protected = "true" }
"""


def settings(tmp_path: Path, toml: str = "", environ: dict[str, str] | None = None) -> Settings:
    (tmp_path / "moorage.toml").write_text(toml)
    return load(config=None, data=tmp_path, overrides={}, environ=environ or {})


def test_a_file_and_the_environment_say_the_same(tmp_path: Path) -> None:
    from_file = settings(tmp_path, TOML)
    text = json.dumps([GITHUB, GITLAB])
    from_environment = settings(tmp_path, environ={"MOORAGE_AUTH__OIDC": text})
    assert from_file.auth.oidc == from_environment.auth.oidc
    github, gitlab = from_file.auth.oidc
    assert github.audience == "https://registry.example.org"
    assert github.rules[0].claims == {"repository": ("org/app",), "ref": ("refs/tags/v*",)}
    assert github.jwks_file == github.jwks_url == ""
    assert gitlab.audience == "moorage"
    assert gitlab.jwks_file == "gitlab.json"


def test_it_is_printed_as_it_was_given(tmp_path: Path) -> None:
    shown = show(settings(tmp_path, TOML))["auth"]["oidc"]
    assert shown == [GITHUB, {**GITLAB, "audience": "moorage"}]
    assert SETTINGS["auth.oidc"].kind.from_toml(shown) == settings(tmp_path, TOML).auth.oidc


def test_it_travels_to_a_worker_process(tmp_path: Path) -> None:
    given = settings(tmp_path, TOML)
    assert pickle.loads(pickle.dumps(given)).auth == given.auth  # noqa: S301 - our own bytes


def changed(**changes: Any) -> list[Any]:
    return [{k: v for k, v in {**GITHUB, **changes}.items() if v is not ...}]


def rule(**changes: Any) -> list[Any]:
    made = {**GITHUB["rules"][1], **changes}
    return changed(rules=[GITHUB["rules"][0], {k: v for k, v in made.items() if v is not ...}])


@pytest.mark.parametrize(
    ("items", "place"),
    [
        (["https://gitlab.example.org"], "[0]: "),
        ([GITHUB, 1], "[1]: "),
        ([GITHUB, GITHUB], "[1]: "),
        (changed(issuer=...), "[0].issuer: "),
        (changed(issuer=1), "[0].issuer: "),
        (changed(issuer=""), "[0].issuer "),
        (changed(issuer="gitlab.example.org"), "[0].issuer "),
        (changed(issuer="https://me@gitlab.example.org"), "[0].issuer "),
        (changed(audience=["a"]), "[0].audience: "),
        (changed(audience=""), "[0].audience: "),
        (changed(jwks_url="keys"), "[0].jwks_url "),
        (changed(jwks_url=1), "[0].jwks_url: "),
        (changed(jwks_file=True), "[0].jwks_file: "),
        (changed(jwks_url="https://a/", jwks_file="a"), "[0]: "),
        (changed(jwks="a"), "[0].jwks: "),
        (changed(rules=...), "[0].rules: "),
        (changed(rules=[]), "[0].rules: "),
        (changed(rules={}), "[0].rules: "),
        (changed(rules=["ci"]), "[0].rules[0]: "),
        (rule(robot=...), "[0].rules[1].robot: "),
        (rule(robot=1), "[0].rules[1].robot: "),
        (rule(robot="robot:ci"), "[0].rules[1].robot: "),
        (rule(robot=""), "[0].rules[1].robot: "),
        (rule(user="me"), "[0].rules[1].user: "),
        (rule(claims=...), "[0].rules[1].claims: "),
        (rule(claims={}), "[0].rules[1].claims: "),
        (rule(claims=["repository"]), "[0].rules[1].claims: "),
        (rule(claims={"ref": 1}), "[0].rules[1].claims.ref: "),
        (rule(claims={"ref": True}), "[0].rules[1].claims.ref: "),
        (rule(claims={"ref": []}), "[0].rules[1].claims.ref: "),
        (rule(claims={"ref": ["a", 1]}), "[0].rules[1].claims.ref: "),
        (rule(claims={"ref": {"a": "b"}}), "[0].rules[1].claims.ref: "),
        (rule(claims={"ref": "*"}), "[0].rules[1].claims.ref: "),
        (rule(claims={"ref": "**"}), "[0].rules[1].claims.ref: "),
        (rule(claims={"ref": ["main", "*"]}), "[0].rules[1].claims.ref: "),
        (rule(claims={"ref": "refs/*/main"}), "[0].rules[1].claims.ref: "),
    ],
)
def test_a_refusal_names_the_place(tmp_path: Path, items: list[Any], place: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings(tmp_path, environ={"MOORAGE_AUTH__OIDC": json.dumps(items)})
    assert refused.value.message.startswith(f"auth.oidc{place}")
    assert refused.value.message.endswith(" (environment variable MOORAGE_AUTH__OIDC)")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*GITHUB, "jwks_url", "jwks_file"]), json_values))
def test_no_table_does_more_than_be_refused(changes: dict[str, Any]) -> None:
    with contextlib.suppress(ConfigError):
        parse_issuers(changed(**changes))


CLAIMS = {"repository": "org/app", "ref": "refs/heads/main", "run_number": "10"}


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        ({"repository": ("org/app",)}, True),
        ({"repository": ("org/app",), "ref": ("refs/heads/main",)}, True),
        ({"repository": ("org/app",), "ref": ("refs/heads/other",)}, False),
        ({"repository": ("org/lib", "org/app")}, True),
        ({"repository": ("org/lib", "org/web")}, False),
        ({"repository": ("org/ap",)}, False),
        ({"repository": ("org/app2",)}, False),
        ({"repository": ("Org/App",)}, False),
        ({"repository": ("",)}, False),
        ({"repository": ("org/*",)}, True),
        ({"repository": ("org/app*",)}, True),
        ({"repository": ("or/*",)}, False),
        ({"repository": ("rg/*",)}, False),
        ({"repository": (".rg/a*",)}, False),
        ({"environment": ("production",)}, False),
        ({"environment": ("",)}, False),
        ({"environment": ("None",)}, False),
        ({"environment": ("p*",)}, False),
    ],
    ids=str,
)
def test_rules(wanted: dict[str, tuple[str, ...]], matches: bool) -> None:
    assert OidcRule("ci", wanted).matches(CLAIMS) is matches


@pytest.mark.parametrize("value", [None, True, 1, ["org/app"], {"org/app": 1}, "org/app\n"])
def test_only_the_same_text_matches(value: object) -> None:
    assert not OidcRule("ci", {"repository": ("org/app",)}).matches({"repository": value})
