"""Rules of immutable tags, which cannot be moved or deleted."""

from typing import Annotated

from msgspec import Meta

from registry.auth.policy.patterns import RepositoryPattern
from registry.clock import rfc3339
from registry.errors import ConflictError, NotFoundError
from registry.oci.tag_patterns import TagPattern
from registry.operations.context import OperationContext
from registry.operations.fields import (
    PAGE_SIZE,
    Number,
    Page,
    Pattern,
    RequestModel,
    ResponseModel,
    Size,
    Timestamp,
    clamp,
    make_visible_page,
)
from registry.operations.operation import Operation
from registry.operations.permissions import PATTERN_ADMINS, SOME_ADMINS
from registry.services.protection import immutable_tags

TagGlob = Annotated[str, Meta(extra_json_schema={"examples": ["v*", "[0-9]*", "*"]})]


class ImmutableTagRule(ResponseModel, frozen=True):
    """A rule: tags that match `tags` are immutable in the repositories of the pattern."""

    id: int
    pattern: str
    tags: str
    created_by: str
    created_at: Timestamp


class ListImmutableTags(RequestModel, frozen=True):
    """A page of rules by ID: `n` entries after `last`."""

    n: Size = PAGE_SIZE
    last: Number = 0


class NameImmutableTags(RequestModel, frozen=True):
    """A rule, by its pattern of repositories and its pattern of tags."""

    pattern: Pattern
    tags: TagGlob


def _show(row: immutable_tags.ImmutableRow) -> ImmutableTagRule:
    return ImmutableTagRule(row.id, row.pattern, row.tags, row.created_by, rfc3339(row.created_at))


async def list_immutable_tag_rules(
    context: OperationContext, request: ListImmutableTags
) -> Page[ImmutableTagRule]:
    """List the rules of immutable tags that the caller may administer."""
    return await make_visible_page(
        context.registry.immutable_tags.list_page,
        clamp(request.n),
        request.last,
        is_visible=lambda row: context.administers(RepositoryPattern.parse(row.pattern)),
        show=_show,
        key=lambda row: row.id,
    )


async def create_immutable_tag_rule(
    context: OperationContext, request: NameImmutableTags
) -> ImmutableTagRule:
    """Make existing and future tags that match a pattern immutable."""
    return _show(
        await context.registry.immutable_tags.add(
            RepositoryPattern.parse(request.pattern), TagPattern.parse(request.tags), context.actor
        )
    )


async def delete_immutable_tag_rule(context: OperationContext, request: NameImmutableTags) -> None:
    """Delete a rule of immutable tags."""
    await context.registry.immutable_tags.remove(
        RepositoryPattern.parse(request.pattern), TagPattern.parse(request.tags), context.actor
    )


_PATH = "/immutable-tags"

OPERATIONS = (
    Operation("GET", _PATH, list_immutable_tag_rules, SOME_ADMINS),
    Operation("POST", _PATH, create_immutable_tag_rule, PATTERN_ADMINS, (ConflictError,), 201),
    Operation(
        "POST", f"{_PATH}/delete", delete_immutable_tag_rule, PATTERN_ADMINS, (NotFoundError,), 204
    ),
)
