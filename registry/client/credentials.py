"""Credentials for an upstream: from the settings, a file, or a Docker credential helper."""

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from registry import secret_files
from registry.client.targets import Target
from registry.errors import ConfigError, UpstreamError, UpstreamUnavailableError

HELPER_S = 10.0
"""Time limit of a credential helper, in seconds."""

_END_S = 1.0
_MOST_OUTPUT = 64 << 10
_KEEP_S = 300.0
_DOCKER_HUB = {"docker.io", "index.docker.io", "registry-1.docker.io"}
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_HELPER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_IDENTITY_TOKEN = "<token>"  # noqa: S105 - the name that helpers return with an identity token


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name with its password, or an identity token."""

    username: str
    password: str = field(repr=False)

    @property
    def is_identity_token(self) -> bool:
        """Whether the password is a refresh token for the token server (OAuth 2)."""
        return self.username == _IDENTITY_TOKEN

    @property
    def basic(self) -> str:
        """Value of the Authorization header."""
        pair = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        return f"Basic {pair}"


Source = Callable[[], Awaitable[Credentials]]
"""A function that reads the credentials; it raises UpstreamError if there are none."""


def from_settings(username: str, password: str) -> Source:
    """Return a source of the given credentials."""

    async def read() -> Credentials:
        return Credentials(username, password)

    return read


def from_file(username: str, path: Path) -> Source:
    """Return a source that reads the password from a file of one line, so that it can change."""

    async def read() -> Credentials:
        try:
            return Credentials(username, await asyncio.to_thread(secret_files.read, path))
        except ConfigError as error:
            raise UpstreamUnavailableError(error.message) from error

    return read


def from_helper(name: str, server: str) -> Source:
    """Return a source that runs `docker-credential-NAME get` for the URL of a server.

    Raises ConfigError if the name is not that of a helper.
    """
    if not _HELPER.fullmatch(name):
        raise ConfigError(
            f"invalid credential helper {name[:64]!a}: give the name after docker-credential-, "
            'such as "ecr-login"'
        )

    async def read() -> Credentials:
        program = f"docker-credential-{name}"
        try:
            raw = await _run(program, server.encode())
        except TimeoutError:
            raise UpstreamUnavailableError(
                f"{program} did not respond within {HELPER_S:g} s"
            ) from None
        except OSError as error:
            raise UpstreamUnavailableError(f"cannot run {program}: {error.strerror}") from None
        try:
            answer = json.loads(raw)
            return Credentials(_text(answer["Username"]), _text(answer["Secret"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UpstreamUnavailableError(f"{program} has no credentials for {server}") from None

    return read


def find_helper_key(url: str) -> str:
    """Return the name under which Docker stores the credentials of the registry at `url`."""
    authority = Target.parse(url).authority
    return _DOCKER_HUB_KEY if authority in _DOCKER_HUB else authority


class CredentialCache:
    """The credentials of a source, kept for five minutes."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._known: Credentials | None = None
        self._until = 0.0
        self._lock = asyncio.Lock()

    async def get(self) -> Credentials:
        """Return the credentials. Raises UpstreamError if the source has none."""
        async with self._lock:
            if self._known is None or time.monotonic() >= self._until:
                self._known = await self._source()
                self._until = time.monotonic() + _KEEP_S
            return self._known

    async def replace(self, refused: Credentials) -> Credentials | None:
        """Return other credentials than the refused ones, if the source has them by now."""
        self._until = 0.0
        with contextlib.suppress(UpstreamError):
            current = await self.get()
            if current != refused:
                return current
        return None


async def _run(program: str, text: bytes) -> bytes:
    """Return the output of a credential helper, or nothing if it fails.

    Raises OSError if it cannot be started, and TimeoutError.
    """
    process = await asyncio.create_subprocess_exec(
        program,
        "get",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(HELPER_S):
            return await _talk(process, text)
    finally:
        # Helpers may have started other programs, which would keep the output open.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):  # asyncio closes a pipe only at its end
                while process.stdout and await process.stdout.read(_MOST_OUTPUT):
                    pass
        await process.wait()


async def _talk(process: asyncio.subprocess.Process, text: bytes) -> bytes:
    assert process.stdin is not None  # noqa: S101 - both are pipes
    assert process.stdout is not None  # noqa: S101
    with contextlib.suppress(ConnectionError):  # a helper need not read its input
        process.stdin.write(text)
        await process.stdin.drain()
    process.stdin.close()
    raw = bytearray()
    while piece := await process.stdout.read(_MOST_OUTPUT):
        raw += piece
        if len(raw) > _MOST_OUTPUT:
            return b""
    return bytes(raw) if await process.wait() == 0 else b""


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError
    return value
