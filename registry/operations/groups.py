"""Groups and their members."""

from registry.clock import rfc3339
from registry.errors import ConflictError, NotFoundError
from registry.operations.context import OperationContext
from registry.operations.fields import (
    AccountName,
    Page,
    PageRequest,
    RequestModel,
    ResponseModel,
    Timestamp,
    clamp,
    make_page,
)
from registry.operations.operation import ADMINS, Operation
from registry.services.access import groups


class Group(ResponseModel, frozen=True):
    """A group of users."""

    name: str
    created_at: Timestamp
    members: list[str]


class NamedGroup(RequestModel, frozen=True):
    """The name of a group."""

    name: str


class CreateGroup(RequestModel, frozen=True):
    """The group to add."""

    name: AccountName


class Membership(RequestModel, frozen=True):
    """A group and a user."""

    group: str
    user: str


def _show(group: groups.Group) -> Group:
    return Group(group.name, rfc3339(group.created_at), group.members)


async def list_groups(context: OperationContext, request: PageRequest) -> Page[Group]:
    """List groups with their members, by name."""
    n = clamp(request.n)
    return make_page(
        await context.access.groups.list_page(n + 1, request.last), n, _show, lambda row: row.name
    )


async def create_group(context: OperationContext, request: CreateGroup) -> Group:
    """Add a group."""
    return _show(await context.access.groups.add(request.name, context.actor))


async def get_group(context: OperationContext, request: NamedGroup) -> Group:
    """Return a group."""
    return _show(await context.access.groups.get(request.name))


async def delete_group(context: OperationContext, request: NamedGroup) -> None:
    """Delete a group with its grants. Its members remain users."""
    await context.access.groups.remove(request.name, context.actor)


async def add_member(context: OperationContext, request: Membership) -> Group:
    """Add a user to a group. This has no effect if the user is already a member."""
    return _show(await context.access.groups.add_member(request.group, request.user, context.actor))


async def remove_member(context: OperationContext, request: Membership) -> Group:
    """Remove a user from a group."""
    return _show(
        await context.access.groups.remove_member(request.group, request.user, context.actor)
    )


_MEMBER = "/groups/{group}/members/{user}"

OPERATIONS = (
    Operation("GET", "/groups", list_groups, ADMINS),
    Operation("POST", "/groups", create_group, ADMINS, (ConflictError,), 201),
    Operation("GET", "/groups/{name}", get_group, ADMINS, (NotFoundError,)),
    Operation("DELETE", "/groups/{name}", delete_group, ADMINS, (NotFoundError,), 204),
    Operation("PUT", _MEMBER, add_member, ADMINS, (NotFoundError,)),
    Operation("DELETE", _MEMBER, remove_member, ADMINS, (NotFoundError,)),
)
