"""The actions of requests and the rights that grants give.

Source: Distribution's token scope specification; design.md, grants.
"""

from collections.abc import Iterable
from enum import StrEnum

from registry.errors import ActionInvalidError


class Action(StrEnum):
    """The action that a route requires, as the route table states it."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    CATALOG = "catalog"
    # Requires only that the caller may use the registry: `GET /v2/`.
    SIGN_IN = "sign-in"


class Right(StrEnum):
    """A right that a grant gives. `create` without `overwrite` makes tags that cannot be moved."""

    PULL = "pull"
    CREATE = "create"
    OVERWRITE = "overwrite"
    DELETE = "delete"
    # All other rights, and managing the grants of these repositories.
    ADMIN = "admin"


Rights = frozenset[Right]

NO_RIGHTS: Rights = frozenset()
ALL_RIGHTS: Rights = frozenset(Right)
_PUSH = frozenset({Right.CREATE, Right.OVERWRITE})


def parse_rights(names: Iterable[str]) -> Rights:
    """Parse names of rights. `push` stands for `create` and `overwrite`.

    Raises ActionInvalidError for any other name.
    """
    rights: set[Right] = set()
    for name in names:
        if name == "push":
            rights |= _PUSH
        elif name in set(Right):
            rights.add(Right(name))
        else:
            known = "pull, push, create, overwrite, delete, admin"
            raise ActionInvalidError(f"unknown action {name[:40]!r}; actions are {known}")
    if not rights:
        raise ActionInvalidError("no actions given")
    return frozenset(rights)


def format_rights(rights: Rights) -> list[str]:
    """Return the names of the rights in a fixed order; `push` replaces `create` and `overwrite`."""
    names = [right.value for right in Right if right in rights]
    if rights >= _PUSH:
        names[names.index("create")] = "push"
        names.remove("overwrite")
    return names


def require_pull(rights: Rights) -> Rights:
    """Return the rights, or none if they do not include `pull`.

    The answers to pushes and deletes reveal what the repository contains, so they need `pull` as
    well.
    """
    return rights if Right.PULL in rights else NO_RIGHTS


def allowed_actions(rights: Rights) -> frozenset[Action]:
    """Return the actions that the rights allow. Either `create` or `overwrite` allows a push."""
    actions: set[Action] = set()
    if Right.PULL in rights:
        actions.add(Action.PULL)
    if rights & _PUSH:
        actions.add(Action.PUSH)
    if Right.DELETE in rights:
        actions.add(Action.DELETE)
    return frozenset(actions)
