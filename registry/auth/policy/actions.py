"""The actions of requests and the rights that grants give.

Source: Distribution's token scope specification; docs/guides/authentication.md for grants.
"""

from collections.abc import Iterable
from enum import StrEnum

from registry.errors import ActionInvalidError


class Action(StrEnum):
    """The action that a route requires, as the route table states it."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    # No route requires it: it is part of a pull from a mirror that has credentials.
    FILL = "fill"
    CATALOG = "catalog"
    # Requires only that the caller may use the registry: `GET /v2/`.
    SIGN_IN = "sign-in"


class GrantAction(StrEnum):
    """An action of a grant. `push` stands for `create` and `overwrite`."""

    PULL = "pull"
    PUSH = "push"
    CREATE = "create"
    OVERWRITE = "overwrite"
    DELETE = "delete"
    FILL = "fill"
    ADMIN = "admin"


Rights = frozenset[GrantAction]
"""Actions that a grant allows, without `push`, which is expanded.

`fill` lets a pull from a mirror fetch content with the credentials of the mirror. `create` without
`overwrite` makes tags that cannot be moved. `admin` includes all other actions, and managing the
grants of these repositories.
"""

NO_RIGHTS: Rights = frozenset()
ALL_RIGHTS: Rights = frozenset(GrantAction) - {GrantAction.PUSH}
_PUSH = frozenset({GrantAction.CREATE, GrantAction.OVERWRITE})


def parse_rights(names: Iterable[str]) -> Rights:
    """Parse names of rights. `push` stands for `create` and `overwrite`.

    Raises ActionInvalidError for any other name.
    """
    rights: set[GrantAction] = set()
    for name in names:
        if name not in set(GrantAction):
            known = ", ".join(GrantAction)
            raise ActionInvalidError(f"unknown action {name[:40]!r}; actions are {known}")
        action = GrantAction(name)
        rights |= _PUSH if action is GrantAction.PUSH else {action}
    if not rights:
        raise ActionInvalidError("no actions given")
    return frozenset(rights)


def format_rights(rights: Rights) -> list[GrantAction]:
    """Return the actions in a fixed order; `push` replaces `create` and `overwrite`."""
    if rights >= _PUSH:
        rights = rights - _PUSH | {GrantAction.PUSH}
    return [action for action in GrantAction if action in rights]


def require_pull(rights: Rights) -> Rights:
    """Return the rights, or none if they do not include `pull`.

    The answers to pushes and deletes reveal what the repository contains, so they need `pull` as
    well.
    """
    return rights if GrantAction.PULL in rights else NO_RIGHTS


def allowed_actions(rights: Rights) -> frozenset[Action]:
    """Return the actions that the rights allow. Either `create` or `overwrite` allows a push."""
    actions: set[Action] = set()
    if GrantAction.PULL in rights:
        actions.add(Action.PULL)
        if GrantAction.FILL in rights:
            actions.add(Action.FILL)
    if rights & _PUSH:
        actions.add(Action.PUSH)
    if GrantAction.DELETE in rights:
        actions.add(Action.DELETE)
    return frozenset(actions)
