"""Looks at tags of mirrors on request."""

from registry.errors import (
    ConflictError,
    InputInvalidError,
    ManifestUnknownError,
    NameInvalidError,
    NotFoundError,
    TagInvalidError,
    UpstreamUnavailableError,
)
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.operations.context import OperationContext
from registry.operations.fields import RepositoryText, RequestModel, ResponseModel, TagText
from registry.operations.mirrors.mirrors import MirrorName
from registry.operations.operation import ADMINS, Operation
from registry.services.mirrors.mirror import Mirrored


class RefreshTag(RequestModel, frozen=True):
    """A tag of a repository of the mirror."""

    name: MirrorName
    repository: RepositoryText
    tag: TagText


class RefreshedTag(ResponseModel, frozen=True):
    """A tag, and the digests that it had before and has now. `old` is null if it was not cached."""

    repository: str
    tag: str
    old: str | None
    new: str


async def refresh_tag(context: OperationContext, request: RefreshTag) -> RefreshedTag:
    """Look up a tag at the upstream now, however recently that was done."""
    mirror = await context.registry.mirrors.get(request.name)
    name, tag = RepositoryName.parse(request.repository), Tag.parse(request.tag)
    remote = mirror.find_remote(name)
    if remote is None:
        raise InputInvalidError(f"{name} is not a repository of the mirror {mirror.name}")
    at = Mirrored(mirror, name, remote)
    old, new = await context.registry.mirrored_manifests.refresh(at, tag)
    return RefreshedTag(str(name), str(tag), None if old is None else str(old), str(new))


OPERATIONS = (
    Operation(
        "POST",
        "/mirrors/{name}/refresh",
        refresh_tag,
        ADMINS,
        (
            ConflictError,
            ManifestUnknownError,
            NameInvalidError,
            NotFoundError,
            TagInvalidError,
            UpstreamUnavailableError,
        ),
    ),
)
