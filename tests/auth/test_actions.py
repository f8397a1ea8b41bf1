"""Names of actions, and operations on sets of actions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.auth.caller import rights_of_actions
from registry.auth.policy.actions import (
    ALL_RIGHTS,
    Action,
    GrantAction,
    Rights,
    allowed_actions,
    format_rights,
    parse_rights,
)
from registry.errors import ActionInvalidError

some_rights = st.frozensets(st.sampled_from(sorted(ALL_RIGHTS)))


@pytest.mark.parametrize(
    ("names", "rights"),
    [
        (["pull"], {GrantAction.PULL}),
        (["push"], {GrantAction.CREATE, GrantAction.OVERWRITE}),
        (["push", "create", "pull"], {GrantAction.CREATE, GrantAction.OVERWRITE, GrantAction.PULL}),
        (["create"], {GrantAction.CREATE}),
        (["overwrite", "delete"], {GrantAction.OVERWRITE, GrantAction.DELETE}),
        (["admin"], {GrantAction.ADMIN}),
        (["pull", "pull"], {GrantAction.PULL}),
    ],
)
def test_reads(names: list[str], rights: Rights) -> None:
    assert parse_rights(names) == rights


@pytest.mark.parametrize(
    "names", [[], [""], ["Pull"], ["pull "], ["*"], ["catalog"], ["pull", "write"], ["\ud800" * 99]]
)
def test_refuses(names: list[str]) -> None:
    with pytest.raises(ActionInvalidError) as caught:
        parse_rights(names)
    caught.value.message.encode()


def test_writes_both_halves_of_push_as_one() -> None:
    assert format_rights(ALL_RIGHTS) == ["pull", "push", "delete", "fill", "admin"]
    assert format_rights(frozenset({GrantAction.OVERWRITE})) == ["overwrite"]
    assert format_rights(frozenset({GrantAction.DELETE, GrantAction.CREATE})) == [
        "create",
        "delete",
    ]
    assert format_rights(frozenset()) == []


@given(some_rights.filter(bool))
def test_what_is_written_is_read_again(rights: Rights) -> None:
    assert parse_rights(format_rights(rights)) == rights


@given(st.lists(st.text() | st.sampled_from(list(GrantAction))))
def test_no_text_crashes(names: list[str]) -> None:
    try:
        rights = parse_rights(names)
    except ActionInvalidError:
        assert not names or set(names) - set(GrantAction)
    else:
        assert set(names) <= set(GrantAction)
        assert rights


@given(some_rights)
def test_what_may_be_done(rights: Rights) -> None:
    actions = allowed_actions(rights)
    assert (Action.PULL in actions) == (GrantAction.PULL in rights)
    assert (Action.PUSH in actions) == (
        GrantAction.CREATE in rights or GrantAction.OVERWRITE in rights
    )
    assert (Action.DELETE in actions) == (GrantAction.DELETE in rights)
    assert (Action.FILL in actions) == ({GrantAction.PULL, GrantAction.FILL} <= rights)
    assert actions <= {Action.PULL, Action.PUSH, Action.DELETE, Action.FILL}


@given(st.frozensets(st.sampled_from([Action.PULL, Action.PUSH, Action.DELETE])))
def test_a_token_stands_for_the_rights_of_its_actions(actions: frozenset[Action]) -> None:
    rights = rights_of_actions(actions)
    assert allowed_actions(rights) == actions
    assert GrantAction.ADMIN not in rights
