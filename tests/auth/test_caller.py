"""Permissions of a caller: its grants, limited by its token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.auth.caller import OPEN, Caller, needed_actions, rights_of_actions
from registry.auth.policy.actions import ALL_RIGHTS, NO_RIGHTS, Action, GrantAction, Rights
from registry.auth.policy.patterns import EVERYTHING, RepositoryPattern
from registry.auth.policy.policy import Policy
from registry.auth.policy.principals import ANONYMOUS, Principal
from registry.auth.policy.scopes import Scopes
from registry.metadata.access.grants import GrantRow
from registry.metadata.access.policy import PolicyRows, Removal
from registry.oci.names import RepositoryName

APP, OTHER = RepositoryName("team/app"), RepositoryName("team/other")
PULL, PUSH, DELETE = Action.PULL, Action.PUSH, Action.DELETE
CONTENT = [PULL, PUSH, DELETE]

some_rights = st.frozensets(st.sampled_from(sorted(ALL_RIGHTS)))
some_actions = st.frozensets(st.sampled_from(CONTENT))


def caller(
    rights: Rights, scopes: Scopes | None = None, *, removed_at: int = 0, since: int = 0
) -> Caller:
    """Return a caller that has `rights` in one repository and none elsewhere."""
    removals = {APP: Removal(removed_at, 0)} if removed_at else {}
    rows = PolicyRows(9, [], [], [], [], [], [], removals)
    policy = Policy(rows, personal_namespaces=False)
    given_rights = {APP: rights}
    return Caller(
        Principal("ann", "user:ann:1"),
        None,
        policy,
        lambda name: given_rights.get(name, NO_RIGHTS),
        scopes,
        since,
    )


def scopes(*actions: Action, name: RepositoryName = APP, catalog: bool = False) -> Scopes:
    return Scopes({name: frozenset(actions)}, catalog)


@pytest.mark.parametrize(
    ("rights", "may"),
    [
        (set(), []),
        ({GrantAction.PULL}, [PULL]),
        ({GrantAction.CREATE}, []),
        ({GrantAction.PULL, GrantAction.CREATE}, [PULL, PUSH]),
        ({GrantAction.PULL, GrantAction.OVERWRITE}, [PULL, PUSH]),
        ({GrantAction.DELETE}, [DELETE]),
        (ALL_RIGHTS, CONTENT),
    ],
)
def test_what_each_right_is_good_for(rights: Rights, may: list[Action]) -> None:
    ann = caller(frozenset(rights))
    assert [action for action in CONTENT if ann.may(action, APP)] == may
    assert not any(ann.may(action, OTHER) for action in CONTENT)
    assert ann.may_pull(APP) is ann.could_pull(APP) is (PULL in may)


@pytest.mark.parametrize("action", Action)
def test_what_concerns_no_repository_is_open_to_all_let_in(action: Action) -> None:
    assert caller(NO_RIGHTS).may(action, None)


@pytest.mark.parametrize(
    ("bound", "may"),
    [
        (scopes(), []),
        (scopes(PULL), [PULL]),
        (scopes(PUSH), []),
        (scopes(PULL, PUSH), [PULL, PUSH]),
        (scopes(DELETE), [DELETE]),
        (scopes(*CONTENT), CONTENT),
        (scopes(*CONTENT, name=OTHER), []),
        (Scopes({}), []),
        (Scopes({}, catalog=True), []),
    ],
)
def test_a_token_bounds_her(bound: Scopes, may: list[Action]) -> None:
    ann = caller(ALL_RIGHTS, bound)
    assert [action for action in CONTENT if ann.may(action, APP)] == may
    assert ann.could_pull(APP)


@given(some_rights, some_actions)
def test_a_token_gives_nothing(rights: Rights, actions: frozenset[Action]) -> None:
    free, bound = caller(rights), caller(rights, scopes(*actions))
    allowed = rights_of_actions(actions)
    if Action.PULL in actions:
        allowed |= {GrantAction.FILL}  # clients do not ask for it
    assert bound.rights_in(APP) == rights & allowed
    assert bound.rights_in(APP) <= free.rights_in(APP)
    for action in CONTENT:
        assert bound.may(action, APP) == (
            free.may(action, APP) and needed_actions(action) <= actions
        )


def test_a_token_to_push_does_not_overwrite_for_who_may_only_create() -> None:
    ann = caller(frozenset({GrantAction.PULL, GrantAction.CREATE}), scopes(PULL, PUSH))
    assert ann.may(PUSH, APP)
    assert GrantAction.OVERWRITE not in ann.rights_in(APP)


@pytest.mark.parametrize(("since", "good"), [(4, False), (5, True), (6, True)])
def test_a_token_is_not_for_the_next_repository_of_the_name(since: int, *, good: bool) -> None:
    ann = caller(ALL_RIGHTS, scopes(*CONTENT), removed_at=5, since=since)
    assert [ann.may(action, APP) for action in CONTENT] == [good] * 3
    assert bool(ann.visible) is good
    assert ann.could_pull(APP)


def test_who_has_no_token_has_the_rights_of_now() -> None:
    assert caller(ALL_RIGHTS, removed_at=5).may(PUSH, APP)


def test_the_catalogue_shows_what_she_may_pull_with_her_token() -> None:
    bound = Scopes({APP: frozenset({PULL}), OTHER: frozenset({PULL})})
    assert caller(frozenset({GrantAction.PULL}), bound).visible == [
        RepositoryPattern.parse("team/app")
    ]
    assert caller(frozenset({GrantAction.CREATE}), bound).visible == []
    assert caller(ALL_RIGHTS, scopes(PUSH)).visible == []
    assert caller(ALL_RIGHTS, Scopes({})).visible == []


def test_one_for_the_catalogue_shows_all_that_she_may_pull() -> None:
    """A catalog scope shows every repository that the caller may pull.

    The other scopes of the token do not limit the list. A token of an external issuer shows the
    repositories that it names.
    """
    rows = PolicyRows(9, [], [], [], [], [GrantRow(1, "anonymous", "team/*", "pull", 0)], [], {})
    policy = Policy(rows, personal_namespaces=False)
    bound = scopes(PULL, catalog=True)
    for given_scopes in (None, bound):
        anybody = Caller(ANONYMOUS, None, policy, lambda _: NO_RIGHTS, given_scopes)
        assert anybody.visible == [RepositoryPattern.parse("team/*")]
    outside = Caller(ANONYMOUS, None, None, lambda _: ALL_RIGHTS, bound)
    assert outside.visible == [RepositoryPattern.parse("team/app")]


def test_where_nobody_signs_in() -> None:
    assert OPEN.principal == ANONYMOUS
    assert all(OPEN.may(action, APP) for action in CONTENT)
    assert OPEN.rights_in(APP) == ALL_RIGHTS
    assert OPEN.visible == [EVERYTHING]


def test_the_names_of_her_token() -> None:
    assert caller(ALL_RIGHTS).named_repositories is None
    bound = Scopes({APP: frozenset(), OTHER: frozenset({PULL})})
    assert caller(NO_RIGHTS, bound).named_repositories == [APP, OTHER]
