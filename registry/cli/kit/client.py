"""Operations of the admin API for commands, run locally or sent to the registry at `--url`."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast
from urllib.parse import quote, urlsplit

from registry.cli.kit import output, passwords, progress
from registry.cli.kit.local import with_registry
from registry.errors import ConfigError, InputInvalidError, UpstreamError

if TYPE_CHECKING:
    from registry.app import Runtime
    from registry.client.admin import AdminClient, SignIn
    from registry.operations.context import OperationContext
    from registry.operations.fields import Page

T = TypeVar("T")

Result = TypeVar("Result")
Handler = Callable[["OperationContext", Any], Awaitable[Result]]
"""An operation of the admin API, which determines the type of the result."""

_WAITING = "working"
"""Text next to the spinner while an operation runs."""


class OperationClient(Protocol):
    """Client for admin operations, local or remote.

    `name` and `password` are the credentials that signed in, if known.
    """

    name: str
    password: str

    async def send(self, operation: Handler[Result], **values: Any) -> Result:
        """Call an operation and return its result. Values of None are omitted.

        Raises InputInvalidError if the values are invalid, and the errors of the operation.
        """


class _LocalClient:
    """Client that works on the data directory as the operator."""

    name = ""
    password = ""

    def __init__(self, opened: "Runtime") -> None:
        from registry.operations.context import OperationContext

        self._call = OperationContext.of_operator(opened.registry, opened.access)

    async def send(self, operation: Handler[Result], **values: Any) -> Result:
        from registry.operations.table import BY_NAME

        found = BY_NAME[operation.__name__]
        with progress.wait(_WAITING):
            result: Any = await found.run(self._call, found.read(_given(values)))
        return cast("Result", result)


class _RemoteClient:
    """Client that calls the admin API of a remote registry."""

    def __init__(self, client: "AdminClient", sign_in: "SignIn") -> None:
        self.name = sign_in.name
        self.password = sign_in.password
        self._client = client

    async def send(self, operation: Handler[Result], **values: Any) -> Result:
        import msgspec

        from registry.operations.table import BY_NAME

        found = BY_NAME[operation.__name__]
        given = _given(values)
        path = found.path.format(**{name: quote(given.pop(name), "") for name in found.path_fields})
        query = {} if found.has_body else {name: str(value) for name, value in given.items()}
        with progress.wait(_WAITING):
            document = await self._client.send(
                found.method, path, query, given if found.has_body else None
            )
        try:
            result: Result = msgspec.convert(document, found.response_type)
        except msgspec.ValidationError as error:
            raise UpstreamError(
                f"the response to {operation.__name__} is not that of a Moorage of this version: "
                f"{error}"
            ) from error
        return result


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that are not None.

    Raises InputInvalidError if a value is not valid UTF-8.
    """
    import msgspec

    given = {name: value for name, value in values.items() if value is not None}
    try:
        msgspec.json.encode(given)
    except UnicodeEncodeError as error:
        raise InputInvalidError("an argument is not UTF-8") from error
    return given


def run(
    args: argparse.Namespace,
    work: Callable[[OperationClient], Awaitable[T]],
    *,
    create: bool = False,
    with_stores: bool = False,
    job: "Callable[[Runtime], Awaitable[object]] | None" = None,
) -> T:
    """Run `work` with the client that the options select.

    With `create`, a registry is created in the data directory if there is none. `with_stores`
    starts the local stores, for operations that read or write bytes of blobs. `job` runs next to
    `work` on a local registry, for operations that a background job of a server carries out. It is
    cancelled when `work` has ended.
    """
    if not args.url:
        return with_registry(
            args,
            lambda opened: _work_next_to(job, opened, work(_LocalClient(opened))),
            create=create,
            with_stores=with_stores,
        )
    from registry.client.admin import AdminClient

    sign_in = _read_sign_in(args)
    client = AdminClient(args.url, sign_in, Path(args.ca_file) if args.ca_file else None)
    if client.readable:
        output.write_error(
            "the connection is not encrypted: others on the network can read the password or token"
        )

    async def send() -> T:
        async with client:
            return await work(_RemoteClient(client, sign_in))

    return asyncio.run(send())


async def _work_next_to(
    job: "Callable[[Runtime], Awaitable[object]] | None", opened: "Runtime", work: Awaitable[T]
) -> T:
    """Return the result of `work`. Raises its error, or that of `job`."""
    if job is None:
        return await work
    working, helping = asyncio.ensure_future(work), asyncio.ensure_future(job(opened))
    try:
        await asyncio.wait([working, helping], return_when=asyncio.FIRST_COMPLETED)
        if helping.done():
            helping.result()
        return await working
    finally:
        for each in (working, helping):
            each.cancel()
        await asyncio.gather(working, helping, return_exceptions=True)


def call(args: argparse.Namespace, operation: Handler[Result], **values: Any) -> Result:
    """Call one operation and return its response."""
    return run(args, lambda operations: operations.send(operation, **values))


def list_all(
    args: argparse.Namespace, operation: "Handler[Page[Result]]", **values: Any
) -> list[Result]:
    """Return all entries of a list operation."""

    async def work(operations: OperationClient) -> list[Result]:
        items = await list_pages(operations, operation, **values)
        if not items and isinstance(operations, _RemoteClient):
            await _explain_nothing(operations)
        return items

    return run(args, work)


async def _explain_nothing(operations: OperationClient) -> None:
    """Print a hint that an empty list may hide entries that the caller may not see."""
    from registry.operations.me import get_me

    me = await operations.send(get_me)
    if not me.admin:
        output.write_note(
            f"{me.name} is not an admin, and this list has only what {me.name} may see: an admin "
            "of the registry may see more."
        )


async def list_pages(
    operations: OperationClient, operation: "Handler[Page[Result]]", **values: Any
) -> list[Result]:
    """Return all entries of a list operation, which are fetched page by page."""
    items: list[Result] = []
    last = None
    while True:
        page = await operations.send(operation, **values, last=last)
        items += page.items
        last = page.next
        if last is None:
            return items


def write_login(args: argparse.Namespace, username: str) -> str:
    """Return the `docker login` command that signs in with a secret."""
    host = urlsplit(args.url).netloc if args.url else "HOST"
    return f"docker login {host} --username {username} --password-stdin"


def _read_sign_in(args: argparse.Namespace) -> "SignIn":
    """Return the credentials for a remote registry. Raises ConfigError or InputInvalidError."""
    from registry.client.admin import SignIn
    from registry.config import read_sign_in

    given = read_sign_in()
    if not args.sign_in_as:
        if not given.token:
            raise ConfigError(
                "--url needs credentials: either --user NAME with the password in "
                "MOORAGE_PASSWORD, or a personal access token in MOORAGE_TOKEN"
            )
        return SignIn(token=given.token)
    if args.sign_in_stdin:
        password = passwords.read_line()
    else:
        password = given.password or passwords.ask(
            f"Password of {args.sign_in_as}", "set MOORAGE_PASSWORD"
        )
    return SignIn(args.sign_in_as, password)
