"""Mirrors: other registries whose content this one fetches when it is pulled, and keeps."""

from typing import Annotated

from msgspec import Meta

from registry.clock import rfc3339
from registry.errors import ConflictError, NotFoundError, UpstreamError
from registry.oci.names import RepositoryName
from registry.operations.context import OperationContext
from registry.operations.fields import (
    NoInput,
    Page,
    RequestModel,
    ResponseModel,
    Timestamp,
)
from registry.operations.operation import ADMINS, Operation
from registry.services.mirrors.mirror import DefaultFor, Mirror
from registry.services.mirrors.options import MirrorOptions

MirrorName = Annotated[
    str, Meta(extra_json_schema={"pattern": "^[a-z0-9]+([._-][a-z0-9]+)*$", "maxLength": 64})
]
UpstreamUrl = Annotated[str, Meta(extra_json_schema={"examples": ["https://registry-1.docker.io"]})]
Prefix = Annotated[str, Meta(extra_json_schema={"examples": ["docker.io", "mirrors/quay"]})]


class MirrorInfo(MirrorOptions, ResponseModel, frozen=True, forbid_unknown_fields=False):
    """A mirror. Its repositories are below `prefix`. The password is never returned."""

    name: str
    url: str
    prefix: str
    has_password: bool
    created_by: str
    created_at: Timestamp
    default_for: DefaultFor | None
    """The requests that the mirror gets although they name none."""


class AddMirror(MirrorOptions, RequestModel, frozen=True):
    """A mirror of the registry at `url`.

    With `adopt`, repositories that exist below the prefix become part of the mirror.
    """

    name: MirrorName
    url: UpstreamUrl
    prefix: Prefix
    password: str | None = None
    adopt: bool = False


class SetMirror(MirrorOptions, RequestModel, frozen=True):
    """All options of a mirror. An option that is left out gets its default.

    The password stays if it is left out, and is removed if it is empty.
    """

    name: MirrorName
    url: UpstreamUrl
    password: str | None = None


class MirrorTest(ResponseModel, frozen=True):
    """Whether the upstream answers and accepts the credentials. `problem` is null if so."""

    name: str
    works: bool
    problem: str | None


class DefaultMirror(ResponseModel, frozen=True):
    """The mirror that gets requests for names without a registry, or null.

    With `unknown_ns`, it also gets requests with an `ns` that no mirror has.
    """

    name: str | None
    unknown_ns: bool


class SetDefaultMirror(RequestModel, frozen=True):
    """The default mirror. Without a name, requests that name no mirror are refused."""

    name: MirrorName | None = None
    unknown_ns: bool = True


class NamedMirror(RequestModel, frozen=True):
    """The name of a mirror."""

    name: MirrorName


def _show(mirror: Mirror) -> MirrorInfo:
    return MirrorInfo(
        name=mirror.name,
        url=mirror.url,
        prefix=str(mirror.prefix),
        has_password=mirror.password is not None,
        created_by=mirror.created_by,
        created_at=rfc3339(mirror.created_at),
        default_for=mirror.default_for,
        **mirror.options.values(),
    )


def _read_options(request: AddMirror | SetMirror) -> MirrorOptions:
    return MirrorOptions(**request.values())


async def list_mirrors(context: OperationContext, request: NoInput) -> Page[MirrorInfo]:
    """List all mirrors, by name."""
    del request
    return Page([_show(each) for each in await context.registry.mirrors.list_all()], None)


async def create_mirror(context: OperationContext, request: AddMirror) -> MirrorInfo:
    """Add a mirror of another registry."""
    mirror = Mirror(
        request.name,
        RepositoryName.parse(request.prefix),
        request.url,
        _read_options(request),
        request.password,
    )
    return _show(await context.registry.mirrors.add(mirror, context.actor, adopt=request.adopt))


async def get_mirror(context: OperationContext, request: NamedMirror) -> MirrorInfo:
    """Return a mirror."""
    return _show(await context.registry.mirrors.get(request.name))


async def test_mirror(context: OperationContext, request: NamedMirror) -> MirrorTest:
    """Ask the upstream of a mirror whether it answers and accepts the credentials."""
    mirror = await context.registry.mirrors.get(request.name)
    try:
        await context.registry.upstreams.ping(mirror)
    except UpstreamError as error:
        return MirrorTest(mirror.name, False, error.message)
    return MirrorTest(mirror.name, True, None)


async def set_mirror(context: OperationContext, request: SetMirror) -> MirrorInfo:
    """Replace the options of a mirror."""
    return _show(
        await context.registry.mirrors.set(
            request.name,
            context.actor,
            url=request.url,
            password=request.password,
            options=_read_options(request),
        )
    )


async def delete_mirror(context: OperationContext, request: NamedMirror) -> None:
    """Delete a mirror. Its cached content stays, in ordinary repositories."""
    await context.registry.mirrors.remove(request.name, context.actor)


async def get_default_mirror(context: OperationContext, request: NoInput) -> DefaultMirror:
    """Return the mirror that gets requests that name none."""
    del request
    for mirror in await context.registry.mirrors.list_all():
        if mirror.default_for is not None:
            return DefaultMirror(mirror.name, mirror.default_for is DefaultFor.ALL)
    return DefaultMirror(None, False)


async def set_default_mirror(context: OperationContext, request: SetDefaultMirror) -> DefaultMirror:
    """Choose the mirror that gets requests that name none."""
    default_for = DefaultFor.ALL if request.unknown_ns else DefaultFor.NAMES
    await context.registry.mirrors.set_default(request.name, default_for, context.actor)
    return DefaultMirror(request.name, request.name is not None and request.unknown_ns)


OPERATIONS = (
    Operation("GET", "/default-mirror", get_default_mirror, ADMINS, (ConflictError,)),
    Operation("PUT", "/default-mirror", set_default_mirror, ADMINS, (NotFoundError,)),
    Operation("GET", "/mirrors", list_mirrors, ADMINS),
    Operation("POST", "/mirrors", create_mirror, ADMINS, (ConflictError,), 201),
    Operation("GET", "/mirrors/{name}", get_mirror, ADMINS, (NotFoundError, ConflictError)),
    Operation("PUT", "/mirrors/{name}", set_mirror, ADMINS, (NotFoundError, ConflictError)),
    Operation("POST", "/mirrors/{name}/test", test_mirror, ADMINS, (NotFoundError, ConflictError)),
    Operation("DELETE", "/mirrors/{name}", delete_mirror, ADMINS, (NotFoundError,), 204),
)
