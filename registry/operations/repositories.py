"""Repositories: listing, description and deletion."""

from registry.clock import rfc3339
from registry.errors import (
    ConflictError,
    NameInvalidError,
    ProtectedError,
    RepositoryUnknownError,
)
from registry.oci.names import RepositoryName
from registry.operations.context import OperationContext
from registry.operations.fields import (
    Page,
    PageRequest,
    RepositoryText,
    RequestModel,
    ResponseModel,
    Timestamp,
    clamp,
    make_page,
)
from registry.operations.operation import AUTHENTICATED, Operation
from registry.operations.permissions import PULLERS, REPOSITORY_ADMINS


class Repository(ResponseModel, frozen=True):
    """A repository with the number of its tags, manifests and blobs.

    `bytes` counts each of its blobs and manifests once, also those that other repositories share.
    """

    name: str
    created_at: Timestamp
    tags: int
    manifests: int
    blobs: int
    bytes: int


class DeletedRepository(ResponseModel, frozen=True):
    """The content of a repository that was deleted."""

    repository: str
    tags: int
    manifests: int
    blobs: int
    bytes: int


class NamedRepository(RequestModel, frozen=True):
    """The name of a repository."""

    repository: RepositoryText


class DeleteRepository(RequestModel, frozen=True):
    """The repository to delete. `override` deletes it even if a tag is immutable."""

    repository: RepositoryText
    override: bool = False


async def list_repositories(context: OperationContext, request: PageRequest) -> Page[str]:
    """List the names of the repositories that the caller may see."""
    n = clamp(request.n)
    names = await context.registry.repositories.list_names(n + 1, request.last, context.visible)
    return make_page(names, n, str, str)


async def get_repository(context: OperationContext, request: NamedRepository) -> Repository:
    """Return a repository with the size of its content."""
    name = RepositoryName.parse(request.repository)
    found = await context.registry.repositories.get(name)
    counts = found.counts
    return Repository(
        str(name),
        rfc3339(found.repository.created_at),
        counts.tags,
        counts.manifests,
        counts.blobs,
        counts.bytes,
    )


async def delete_repository(
    context: OperationContext, request: DeleteRepository
) -> DeletedRepository:
    """Delete a repository with all its content."""
    name = RepositoryName.parse(request.repository)
    counts = await context.registry.repositories.delete(
        name, context.principal, context.actor if request.override else None
    )
    return DeletedRepository(str(name), counts.tags, counts.manifests, counts.blobs, counts.bytes)


_NAMED = (NameInvalidError, RepositoryUnknownError)

OPERATIONS = (
    Operation("GET", "/repositories", list_repositories, AUTHENTICATED),
    Operation("GET", "/repositories/details", get_repository, PULLERS, _NAMED),
    Operation(
        "POST",
        "/repositories/delete",
        delete_repository,
        REPOSITORY_ADMINS,
        (*_NAMED, ConflictError, ProtectedError),
    ),
)
