"""Who asks."""

from registry.api.admin.call import Call
from registry.api.admin.fields import Asked, Shown
from registry.api.admin.operation import SIGNED_IN, Operation
from registry.auth.subjects import SubjectKind


class Me(Shown, frozen=True):
    """Who has signed in. `bounded`: with a token that is not good for all that she may do."""

    name: str
    admin: bool
    bounded: bool
    groups: list[str]


class Nothing(Asked, frozen=True):
    """Nothing more is asked."""


async def get_me(call: Call, asked: Nothing) -> Me:
    """Say who has signed in, and whether she may administer the registry."""
    del asked
    account = call.caller.account if call.caller else None
    subjects = account.subjects if account else ()
    groups = sorted(s.name for s in subjects if s.kind is SubjectKind.GROUP)
    return Me(call.actor.name, call.is_admin, call.is_bounded, groups)


OPERATIONS = (Operation("GET", "/me", get_me, SIGNED_IN),)
