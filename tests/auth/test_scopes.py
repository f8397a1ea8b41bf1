"""Scopes as clients write them: valid scopes are parsed, and no other scope causes an error."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.auth.policy.actions import Action
from registry.auth.policy.scopes import MAX_REPOSITORIES, Scopes, parse_actions
from registry.errors import TooManyScopesError
from registry.logs import LONGEST_FIELD
from registry.oci.names import RepositoryName

PULL, PUSH, DELETE = Action.PULL, Action.PUSH, Action.DELETE
ALL = frozenset({PULL, PUSH, DELETE})
APP = RepositoryName("team/app")

names = st.from_regex(r"[a-z0-9]{1,3}(/[a-z0-9]{1,3}){0,2}", fullmatch=True).map(RepositoryName)
scopes = st.builds(
    Scopes, st.dictionaries(names, st.frozensets(st.sampled_from(sorted(ALL)))), st.booleans()
)
pieces = st.sampled_from(
    ["repository", "registry", "catalog", ":", ",", "*", "(plugin)", "team/app", "pull", " ", "A"]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "name", "actions", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


def read(*texts: str) -> dict[str, set[Action]]:
    return {str(name): set(actions) for name, actions in Scopes.parse(texts).repositories.items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        (" \t\n ", {}),
        ("repository:team/app:pull", {"team/app": {PULL}}),
        ("repository:team/app:pull,push", {"team/app": {PULL, PUSH}}),
        ("repository:team/app:push,pull,delete", {"team/app": set(ALL)}),
        ("repository:team/app:pull,pull", {"team/app": {PULL}}),
        ("repository:team/app:*", {"team/app": set(ALL)}),
        ("repository:team/app:pull,*", {"team/app": set(ALL)}),
        ("repository:team/app:", {"team/app": set()}),
        ("repository:team/app:,", {"team/app": set()}),
        ("repository:team/app:,pull,", {"team/app": {PULL}}),
        ("repository:team/app:write", {"team/app": set()}),
        ("repository:team/app:pull,write", {"team/app": {PULL}}),
        ("repository:team/app:catalog", {"team/app": set()}),
        ("repository:team/app:Pull", {}),
        ("Repository:team/app:pull", {}),
        ("repository:Team/App:pull", {}),
        ("repository:team/app", {}),
        ("repository:pull", {}),
        ("repository::pull", {}),
        ("repository", {}),
        (":", {}),
        ("::", {}),
        (":::", {}),
        (":team/app:pull", {}),
        ("repository(plugin):team/app:pull", {"team/app": {PULL}}),
        ("repository(plugin:team/app:pull", {}),
        ("repository():team/app:pull", {}),
        ("registry:team/app:pull", {}),
        ("other:team/app:pull", {}),
        ("repository:team/app:pull:push", {}),
        ("repository:host:5000/x:pull", {}),
        ("repository:host:5000/x:y:pull", {}),
        ("repository:../app:pull", {}),
        ("repository:team//app:pull", {}),
        ("repository:/team/app:pull", {}),
        ("repository:team/*:pull", {}),
        ("repository:**:pull", {}),
        ("repository:team/app%2f:pull", {}),
        ("repository:team/app:pull\x00", {}),
        ("repository:team/\ud800:pull", {}),
        ("repository:é:pull", {}),
        (f"repository:{'a' * 256}:pull", {}),
        ("repository:a:pull repository:b:push", {"a": {PULL}, "b": {PUSH}}),
        ("repository:a:pull  \n repository:a:push", {"a": {PULL, PUSH}}),
        ("repository:a:pull,push repository:b", {"a": {PULL, PUSH}}),
        ("repository:a:pull, repository:b:pull", {"a": {PULL}, "b": {PULL}}),
    ],
)
def test_reads(text: str, expected: dict[str, set[Action]]) -> None:
    assert read(text) == expected
    assert not Scopes.parse([text]).catalog


def test_several_parameters_are_one_wish() -> None:
    assert read("repository:a:pull", "repository:a:push repository:b:pull") == {
        "a": {PULL, PUSH},
        "b": {PULL},
    }


@pytest.mark.parametrize(
    ("text", "catalog"),
    [
        ("registry:catalog:*", True),
        ("registry:catalog:pull,*", True),
        ("registry:catalog:", False),
        ("registry:catalog:pull", False),
        ("registry:other:*", False),
        ("repository:catalog:*", False),
        ("registry:catalog", False),
    ],
)
def test_the_catalogue(text: str, *, catalog: bool) -> None:
    assert Scopes.parse([text]).catalog is catalog


def test_names_keep_the_order_in_which_they_were_asked_for() -> None:
    asked = [f"n{number}" for number in (3, 1, 2)]
    assert list(read(*(f"repository:{name}:pull" for name in asked))) == asked


def test_more_than_a_request_may_ask_for_is_an_error() -> None:
    many = [f"repository:n{number}:pull" for number in range(MAX_REPOSITORIES)]
    for texts in ([" ".join(many)], many, [*many, *many]):
        assert len(read(*texts)) == MAX_REPOSITORIES
    with pytest.raises(TooManyScopesError, match="1000 repositories"):
        read(*many, "repository:another:pull")


def test_a_summary_is_short() -> None:
    few, many = (Scopes.parse(f"repository:n{n}:pull" for n in range(count)) for count in (5, 500))
    assert few.summarize() == str(few)
    shown, more = many.summarize().split(" and ")
    assert str(many).startswith(shown + " ")
    assert more == f"{500 - len(shown.split())} more"
    assert len(many.summarize()) <= LONGEST_FIELD


@pytest.mark.parametrize(
    "text",
    [
        *("repository:" + "a" * 65_536 + ":pull", ":" * 65_536, "repository" * 6_000),
        *("repository:a:" + "pull," * 13_000, "a:" + ":a" * 30_000 + "!", "(" * 65_536),
        "repository:" + "a/" * 32_000 + ":pull",
    ],
    ids=lambda text: text[:20],
)
def test_long_texts_take_no_time(text: str) -> None:
    began = time.process_time()
    Scopes.parse([text])
    assert time.process_time() - began < 0.5


@given(st.lists(st.text() | st.lists(pieces).map("".join)))
def test_no_text_crashes(texts: list[str]) -> None:
    for actions in Scopes.parse(texts).repositories.values():
        assert actions <= ALL


@given(scopes)
def test_what_is_written_is_read_again(given_scopes: Scopes) -> None:
    assert Scopes.parse([str(given_scopes)]) == given_scopes
    assert Scopes.from_claims(given_scopes.to_claims()) == given_scopes


@pytest.mark.parametrize(
    ("access", "expected"),
    [
        (None, {}),
        ({}, {}),
        ("repository:a:pull", {}),
        ([None, 1, "a", []], {}),
        ([{"type": "repository", "name": "a", "actions": ["pull"]}], {"a": {PULL}}),
        ([{"type": "repository(x)", "name": "a", "actions": ["pull"]}], {"a": {PULL}}),
        ([{"type": "repository", "name": "a", "actions": "pull"}], {}),
        ([{"type": "repository", "name": "a"}], {}),
        ([{"type": "repository", "name": "A", "actions": ["pull"]}], {}),
        ([{"type": "repository", "name": 5, "actions": ["pull"]}], {}),
        ([{"name": "a", "actions": ["pull"]}], {}),
        ([{"type": ["repository"], "name": "a", "actions": ["pull"]}], {}),
        ([{"type": "repository", "name": "a", "actions": [["pull"], None, 1, {}]}], {"a": set()}),
        ([{"type": "repository", "name": "a", "actions": ["*"]}], {"a": set(ALL)}),
    ],
)
def test_reads_claims(access: Any, expected: dict[str, set[Action]]) -> None:
    found = Scopes.from_claims(access)
    assert {str(name): set(actions) for name, actions in found.repositories.items()} == expected
    assert not found.catalog


def test_a_claim_of_the_catalogue_needs_all_of_it() -> None:
    entry = {"type": "registry", "name": "catalog", "actions": ["*"]}
    assert Scopes.from_claims([entry]).catalog
    assert not Scopes.from_claims([{**entry, "actions": ["pull"]}]).catalog


@given(json_values)
def test_no_claim_crashes(access: Any) -> None:
    for actions in Scopes.from_claims(access).repositories.values():
        assert actions <= ALL


@given(st.lists(st.one_of(st.text(), st.none(), st.integers(), st.sampled_from(["pull", "*"]))))
def test_only_known_actions_are_read(actions: list[Any]) -> None:
    assert parse_actions(actions) <= ALL
