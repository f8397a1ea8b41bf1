"""What a request does, and the rights that grants give.

Source: Distribution's token scope specification; design.md, grants.
"""

from collections.abc import Iterable
from enum import StrEnum

from registry.errors import RightsInvalidError


class Action(StrEnum):
    """What a route asks for; it stands beside the route in the table."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    CATALOG = "catalog"
    # Only that the caller is let in at all: `GET /v2/`.
    SIGN_IN = "sign-in"


class Right(StrEnum):
    """What a grant gives. `create` without `overwrite` makes tags that cannot be moved."""

    PULL = "pull"
    CREATE = "create"
    OVERWRITE = "overwrite"
    DELETE = "delete"
    # Every other right, and the grants of these repositories.
    ADMIN = "admin"


Rights = frozenset[Right]

NO_RIGHTS: Rights = frozenset()
ALL_RIGHTS: Rights = frozenset(Right)
_PUSH = frozenset({Right.CREATE, Right.OVERWRITE})


def parse_rights(names: Iterable[str]) -> Rights:
    """Read names of rights, `push` for both of its halves; RightsInvalidError for any other."""
    rights: set[Right] = set()
    for name in names:
        if name == "push":
            rights |= _PUSH
        elif name in set(Right):
            rights.add(Right(name))
        else:
            known = "pull, push, create, overwrite, delete, admin"
            raise RightsInvalidError(f"{name[:40]!r} is no action; actions are {known}")
    if not rights:
        raise RightsInvalidError("no actions were given")
    return frozenset(rights)


def format_rights(rights: Rights) -> list[str]:
    """Names of the rights in a fixed order, both halves of `push` as one."""
    names = [right.value for right in Right if right in rights]
    if rights >= _PUSH:
        names[names.index("create")] = "push"
        names.remove("overwrite")
    return names


def usable(rights: Rights) -> Rights:
    """What is left of rights without `pull`: nothing. Whoever pushes or deletes is told what is
    there, by the answers alone.
    """
    return rights if Right.PULL in rights else NO_RIGHTS


def allowed_actions(rights: Rights) -> frozenset[Action]:
    """What may be done with the rights: to push, either half of `push` is needed."""
    actions: set[Action] = set()
    if Right.PULL in rights:
        actions.add(Action.PULL)
    if rights & _PUSH:
        actions.add(Action.PUSH)
    if Right.DELETE in rights:
        actions.add(Action.DELETE)
    return frozenset(actions)
