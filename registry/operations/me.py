"""The caller's own account."""

from registry.auth.policy.subjects import SubjectKind
from registry.operations.context import OperationContext
from registry.operations.fields import NoInput, ResponseModel
from registry.operations.operation import AUTHENTICATED, Operation


class Me(ResponseModel, frozen=True):
    """The signed-in caller. `has_scopes` is true if the caller's token has scopes."""

    name: str
    admin: bool
    has_scopes: bool
    groups: list[str]


async def get_me(context: OperationContext, request: NoInput) -> Me:
    """Return the signed-in caller, and whether the caller may administer the registry."""
    del request
    account = context.caller.account if context.caller else None
    subjects = account.subjects if account else ()
    groups = sorted(s.name for s in subjects if s.kind is SubjectKind.GROUP)
    return Me(context.actor.name, context.is_admin, context.is_bounded, groups)


OPERATIONS = (Operation("GET", "/me", get_me, AUTHENTICATED),)
