"""Grants. A caller with `admin` on a pattern administers the grants within it."""

from registry.auth.policy.actions import GrantAction, format_rights, parse_rights
from registry.auth.policy.patterns import RepositoryPattern
from registry.auth.policy.subjects import Subject
from registry.errors import NameInvalidError, NotFoundError
from registry.oci.names import RepositoryName
from registry.operations.context import OperationContext
from registry.operations.fields import (
    PAGE_SIZE,
    Actions,
    Number,
    Page,
    Pattern,
    RepositoryText,
    RequestModel,
    ResponseModel,
    Size,
    SubjectText,
    clamp,
    make_page,
)
from registry.operations.operation import Operation, deny
from registry.operations.permissions import PATTERN_ADMINS, REPOSITORY_ADMINS, SOME_ADMINS
from registry.services.access import grants


class Grant(ResponseModel, frozen=True):
    """The actions that a subject may perform in the repositories of a pattern."""

    id: int
    subject: str
    pattern: str
    actions: list[GrantAction]


class GrantDecision(ResponseModel, frozen=True):
    """Whether something is allowed, why, and the grants that decide it."""

    allowed: bool
    reason: str
    grants: list[Grant]


class ListGrants(RequestModel, frozen=True):
    """A page of grants by ID: `n` entries after `last`, of one subject if `subject` is given."""

    n: Size = PAGE_SIZE
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
    repository: RepositoryText
    action: GrantAction


_EVERYTHING = RepositoryPattern.parse("**")
_REQUIREMENT = "admin on the repositories of the grant"


def _show(grant: grants.Grant) -> Grant:
    return Grant(grant.id, str(grant.subject), str(grant.pattern), format_rights(grant.rights))


async def list_grants(context: OperationContext, request: ListGrants) -> Page[Grant]:
    """List the grants that the caller may administer."""
    n, last = clamp(request.n), request.last
    subject = Subject.parse(request.subject) if request.subject else None
    found = await context.access.grants.list_page(
        n + 1, last, subject=subject, may_see=lambda grant: context.administers(grant.pattern)
    )
    return make_page(found, n, _show, lambda grant: grant.id)


async def create_grant(context: OperationContext, request: CreateGrant) -> Grant:
    """Grant actions to a subject. `anonymous` can be granted only `pull`.

    If the subject does not exist, an admin gets an error. For other callers the grant is stored,
    but a subject that is added later does not get it.
    """
    return _show(
        await context.access.grants.add(
            Subject.parse(request.subject),
            RepositoryPattern.parse(request.pattern),
            parse_rights(request.actions),
            context.actor,
            unseen=not context.is_admin,
        )
    )


async def revoke_actions(context: OperationContext, request: RevokeActions) -> None:
    """Revoke a grant, or some of its actions."""
    await context.access.grants.remove(
        Subject.parse(request.subject),
        RepositoryPattern.parse(request.pattern),
        context.actor,
        None if request.actions is None else parse_rights(request.actions),
    )


async def delete_grant(context: OperationContext, request: NumberedGrant) -> None:
    """Delete a grant by its ID."""
    try:
        grant = await context.access.grants.get(request.id)
    except NotFoundError:
        if not context.administers(_EVERYTHING):
            raise deny(context, _REQUIREMENT) from None
        raise
    if not context.administers(grant.pattern):
        raise deny(context, _REQUIREMENT)
    await context.access.grants.remove(grant.subject, grant.pattern, context.actor)


async def check_grant(context: OperationContext, request: CheckGrant) -> GrantDecision:
    """Return whether a subject may do something in a repository, and which grants decide it.

    Callers who are not admins see only the grants that they administer, and do not learn whether
    the subject exists.
    """
    decision = await context.access.grants.check(
        Subject.parse(request.subject),
        RepositoryName.parse(request.repository),
        parse_rights([request.action]),
        unseen=not context.is_admin,
    )
    shown = [_show(grant) for grant in decision.grants if context.administers(grant.pattern)]
    return GrantDecision(decision.allowed, decision.reason, shown)


OPERATIONS = (
    Operation("GET", "/grants", list_grants, SOME_ADMINS),
    Operation("POST", "/grants", create_grant, PATTERN_ADMINS, (NotFoundError,), 201),
    Operation("POST", "/grants/revoke", revoke_actions, PATTERN_ADMINS, (NotFoundError,), 204),
    Operation("GET", "/grants/check", check_grant, REPOSITORY_ADMINS, (NameInvalidError,)),
    Operation("DELETE", "/grants/{id}", delete_grant, SOME_ADMINS, (NotFoundError,), 204),
)
