"""Grants. A caller with `admin` on a pattern administers the grants within it."""

from typing import Annotated

from msgspec import Meta

from registry.api.admin.call import OperationContext
from registry.api.admin.fields import (
    PAGE,
    Actions,
    GrantAction,
    Number,
    Page,
    Pattern,
    RequestModel,
    ResponseModel,
    Size,
    SubjectText,
    clamp,
    make_page,
    write_actions,
)
from registry.api.admin.operation import Operation, Permission, deny
from registry.auth.policy.actions import parse_rights
from registry.auth.policy.patterns import RepositoryPattern
from registry.auth.policy.subjects import Subject
from registry.errors import NameInvalidError, NotFoundError
from registry.oci.names import RepositoryName
from registry.services.access import grants


class Grant(ResponseModel, frozen=True):
    """The actions that a subject may perform in the repositories of a pattern."""

    id: int
    subject: str
    pattern: str
    actions: list[GrantAction]


class Decision(ResponseModel, frozen=True):
    """Whether something is allowed, why, and the grants that decide it."""

    allowed: bool
    reason: str
    grants: list[Grant]


class ListGrants(RequestModel, frozen=True):
    """A page of grants by ID: `n` entries after `last`, of one subject if `subject` is given."""

    n: Size = PAGE
    last: Number = 0
    subject: SubjectText = ""


class CreateGrant(RequestModel, frozen=True):
    """The actions to grant. Actions that are already granted remain."""

    subject: SubjectText
    pattern: Pattern
    actions: Actions


class RevokeActions(RequestModel, frozen=True):
    """The actions to revoke; without `actions`, the whole grant."""

    subject: SubjectText
    pattern: Pattern
    actions: Actions | None = None


class NumberedGrant(RequestModel, frozen=True):
    """The ID of a grant."""

    id: Number


class CheckGrant(RequestModel, frozen=True):
    """A subject, a repository and an action."""

    subject: SubjectText
    repository: Annotated[str, Meta(extra_json_schema={"examples": ["team/app"]})]
    action: GrantAction


_EVERYTHING = RepositoryPattern.parse("**")
_CONCERNED = "admin on the repositories of the grant"

PATTERN_ADMINS = Permission(
    "admins, and whoever may administer all repositories of the pattern",
    lambda call, asked: call.administers(RepositoryPattern.parse(asked.pattern)),
    lambda asked: f"admin on {asked.pattern}",
)
REPOSITORY_ADMINS = Permission(
    "admins, and whoever may administer the repository",
    lambda call, asked: call.administers(_only(asked.repository)),
    lambda asked: f"admin on {asked.repository}",
)
SOME_ADMINS = Permission(
    "admins, and whoever may administer what it concerns; bounded tokens may not",
    lambda call, _: not call.is_bounded,
    lambda _: "admin on what it concerns",
)
SOME_REPOSITORY_ADMINS = Permission(
    "admins, and whoever may administer some repositories",
    lambda call, _: bool(call.administered),
    lambda _: "admin on some repository",
)


def _only(repository: str) -> RepositoryPattern:
    """Return the pattern of one repository; raise NameInvalidError."""
    return RepositoryPattern.parse(str(RepositoryName.parse(repository)))


def _show(grant: grants.Grant) -> Grant:
    return Grant(grant.id, str(grant.subject), str(grant.pattern), write_actions(grant.rights))


async def list_grants(call: OperationContext, asked: ListGrants) -> Page[Grant]:
    """List the grants that the caller may administer."""
    n, last = clamp(asked.n), asked.last
    subject = Subject.parse(asked.subject) if asked.subject else None
    found = await call.access.grants.list_page(
        n + 1, last, subject=subject, may_see=lambda grant: call.administers(grant.pattern)
    )
    return make_page(found, n, _show, lambda grant: grant.id)


async def create_grant(call: OperationContext, asked: CreateGrant) -> Grant:
    """Grant actions to a subject. `anonymous` can be granted only `pull`.

    An admin gets an error if the subject does not exist. For other callers the grant is stored but
    has no effect: a subject that is added later does not get it.
    """
    return _show(
        await call.access.grants.add(
            Subject.parse(asked.subject),
            RepositoryPattern.parse(asked.pattern),
            parse_rights(asked.actions),
            call.actor,
            unseen=not call.is_admin,
        )
    )


async def revoke_actions(call: OperationContext, asked: RevokeActions) -> None:
    """Revoke a grant, or some of its actions."""
    await call.access.grants.remove(
        Subject.parse(asked.subject),
        RepositoryPattern.parse(asked.pattern),
        call.actor,
        None if asked.actions is None else parse_rights(asked.actions),
    )


async def delete_grant(call: OperationContext, asked: NumberedGrant) -> None:
    """Delete a grant by its ID."""
    try:
        grant = await call.access.grants.get(asked.id)
    except NotFoundError:
        if not call.administers(_EVERYTHING):
            raise deny(call, _CONCERNED) from None
        raise
    if not call.administers(grant.pattern):
        raise deny(call, _CONCERNED)
    await call.access.grants.remove(grant.subject, grant.pattern, call.actor)


async def check_grant(call: OperationContext, asked: CheckGrant) -> Decision:
    """Return whether a subject may do something in a repository, and which grants decide it.

    Callers who are not admins see only the grants that they administer, and do not learn whether
    the subject exists.
    """
    decision = await call.access.grants.check(
        Subject.parse(asked.subject),
        RepositoryName.parse(asked.repository),
        parse_rights([asked.action]),
        unseen=not call.is_admin,
    )
    shown = [_show(grant) for grant in decision.grants if call.administers(grant.pattern)]
    return Decision(decision.allowed, decision.reason, shown)


OPERATIONS = (
    Operation("GET", "/grants", list_grants, SOME_ADMINS),
    Operation("POST", "/grants", create_grant, PATTERN_ADMINS, (NotFoundError,), 201),
    Operation("POST", "/grants/revoke", revoke_actions, PATTERN_ADMINS, (NotFoundError,), 204),
    Operation("GET", "/grants/check", check_grant, REPOSITORY_ADMINS, (NameInvalidError,)),
    Operation("DELETE", "/grants/{id}", delete_grant, SOME_ADMINS, (NotFoundError,), 204),
)
