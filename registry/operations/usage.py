"""Storage usage, and what a deletion would free."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from registry.errors import (
    ManifestUnknownError,
    NameInvalidError,
    RepositoryUnknownError,
    TagInvalidError,
)
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.operations.context import OperationContext
from registry.operations.fields import (
    PAGE_SIZE,
    RepositoryText,
    RequestModel,
    ResponseModel,
    TagText,
)
from registry.operations.operation import ADMINS, Operation, Permission
from registry.operations.permissions import administers
from registry.services.content import usage

MOST_ENTRIES = 10_000
"""The maximum number of entries of each list of a report."""


class UsageShare(ResponseModel, frozen=True):
    """The bytes of the blobs of a repository, a tag or a namespace.

    A namespace is the first part of a name; it is empty for names of a single part. `exclusive`
    are the bytes of blobs that no other repository, tag or namespace has.
    """

    name: str
    bytes: int
    exclusive: int
    shared: int


class StoredContent(ResponseModel, frozen=True):
    """All stored content. `unlinked_bytes` are those of blobs that are in no repository."""

    blobs: int
    bytes: int
    unlinked_bytes: int
    manifests: int
    manifest_bytes: int


class UsageReport(ResponseModel, frozen=True):
    """The stored content, and who uses the most of it, the largest first."""

    stored: StoredContent
    repositories: list[UsageShare]
    tags: list[UsageShare]
    namespaces: list[UsageShare]


class FreedContent(ResponseModel, frozen=True):
    """The content that the deletion of tags would free."""

    blobs: int
    bytes: int
    manifests: int
    manifest_bytes: int


class GetUsage(RequestModel, frozen=True):
    """The maximum number of entries of each list."""

    n: Annotated[int, Meta(ge=1, le=MOST_ENTRIES)] = 20


class NamedTag(RequestModel, frozen=True):
    """A tag of a repository."""

    repository: RepositoryText
    tag: TagText


class MeasureFreed(RequestModel, frozen=True):
    """The tags to delete."""

    tags: Annotated[list[NamedTag], Meta(min_length=1, max_length=PAGE_SIZE)]


_REPOSITORIES_ADMINS = Permission(
    "admins, and callers with admin on the repositories of all the tags",
    lambda context, request: all(
        administers(context, name) for name in {each.repository for each in request.tags}
    ),
    lambda _: "admin on the repositories of all the tags",
)


async def get_usage(context: OperationContext, request: GetUsage) -> UsageReport:
    """Return how many bytes are stored, and which repositories, tags and namespaces use the most.

    The query reads all of the registry.
    """
    report = await context.registry.usage.report(request.n)
    stored = report.stored
    return UsageReport(
        StoredContent(
            blobs=stored.blobs,
            bytes=stored.bytes,
            unlinked_bytes=stored.unlinked_bytes,
            manifests=stored.manifests,
            manifest_bytes=stored.manifest_bytes,
        ),
        _show(report.repositories),
        _show(report.tags),
        _show(report.namespaces),
    )


def _show(shares: Sequence[usage.UsageShare]) -> list[UsageShare]:
    return [
        UsageShare(share.name, share.bytes, share.exclusive, share.bytes - share.exclusive)
        for share in shares
    ]


async def measure_freed(context: OperationContext, request: MeasureFreed) -> FreedContent:
    """Return what deleting tags, and all that only they need, would free. Nothing is deleted."""
    gone = [(RepositoryName.parse(each.repository), Tag.parse(each.tag)) for each in request.tags]
    freed = await context.registry.usage.measure_freed(gone)
    return FreedContent(freed.blobs, freed.bytes, freed.manifests, freed.manifest_bytes)


OPERATIONS = (
    Operation("GET", "/usage", get_usage, ADMINS),
    Operation(
        "POST",
        "/usage/freed",
        measure_freed,
        _REPOSITORIES_ADMINS,
        (ManifestUnknownError, NameInvalidError, RepositoryUnknownError, TagInvalidError),
    ),
)
