"""The caller's own account."""

from registry.api.admin.call import OperationContext
from registry.api.admin.fields import RequestModel, ResponseModel
from registry.api.admin.operation import AUTHENTICATED, Operation
from registry.auth.policy.subjects import SubjectKind


class Me(ResponseModel, frozen=True):
    """The signed-in caller. `has_scopes` is true if the caller's token has scopes."""

    name: str
    admin: bool
    has_scopes: bool
    groups: list[str]


class Nothing(RequestModel, frozen=True):
    """No input."""


async def get_me(call: OperationContext, asked: Nothing) -> Me:
    """Return the signed-in caller, and whether the caller may administer the registry."""
    del asked
    account = call.caller.account if call.caller else None
    subjects = account.subjects if account else ()
    groups = sorted(s.name for s in subjects if s.kind is SubjectKind.GROUP)
    return Me(call.actor.name, call.is_admin, call.is_bounded, groups)


OPERATIONS = (Operation("GET", "/me", get_me, AUTHENTICATED),)
