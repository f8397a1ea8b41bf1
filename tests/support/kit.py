"""Helpers that push content in one call, for tests of other behaviour."""

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import sqlalchemy as sa
from starlette.types import ASGIApp, Message

from registry.app import Runtime
from registry.jobs.runner import Job
from registry.jobs.schedule import list_jobs
from registry.metadata import tables
from registry.metadata.engine.database import Database
from registry.oci.media_types import OCI_INDEX, OCI_MANIFEST
from storage.digest import Digest
from storage.driver import Driver
from storage.local.driver import LocalDriver
from storage.memory import MemoryDriver
from storage.s3.driver import S3Driver

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"


def descriptor(data: bytes, media_type: str = LAYER, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data), **more}


def image_manifest(config: bytes, layers: list[bytes], **more: Any) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(config, CONFIG),
            "layers": [descriptor(layer) for layer in layers],
            **more,
        }
    ).encode()


def index_manifest(children: list[bytes], **more: Any) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [descriptor(child, OCI_MANIFEST) for child in children],
            **more,
        }
    ).encode()


def media_type_of(raw: bytes) -> str:
    return str(json.loads(raw)["mediaType"])


class Exchange:
    """A request to the ASGI application whose body and connection the test controls."""

    def __init__(
        self,
        app: ASGIApp,
        method: str,
        target: str,
        headers: dict[str, str],
        on_send: Callable[["Exchange"], Awaitable[None]] | None = None,
    ) -> None:
        """Start the request.

        `on_send` is called after each message of the response. Its errors are raised from `send`.
        """
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "server": ("registry", 80),
            "client": ("127.0.0.1", 123),
            "root_path": "",
        }
        self.sent: list[Message] = []
        self._on_send = on_send
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._waiting = asyncio.Event()
        self._task: asyncio.Future[None] = asyncio.ensure_future(
            app(scope, self._receive, self._send)
        )
        self._task.add_done_callback(lambda _: self._waiting.set())

    async def _receive(self) -> Message:
        self._waiting.set()
        return await self._inbox.get()

    async def _send(self, message: Message) -> None:
        self.sent.append(message)
        if self._on_send is not None:
            await self._on_send(self)

    async def wanted(self) -> None:
        """Wait until the application reads the body or has ended."""
        await self._waiting.wait()

    async def feed(self, data: bytes) -> None:
        """Deliver a chunk of the body, and wait until the application reads the next one."""
        await self._deliver({"type": "http.request", "body": data, "more_body": True})
        await self.wanted()

    async def _deliver(self, message: Message) -> None:
        await self.wanted()
        self._waiting.clear()
        await self._inbox.put(message)

    async def finish(self, data: bytes = b"") -> Self:
        """Deliver the end of the body and wait for the response."""
        await self._deliver({"type": "http.request", "body": data, "more_body": False})
        return await self.ended()

    async def hang_up(self) -> Self:
        """Close the connection in the middle of the body."""
        await self._deliver({"type": "http.disconnect"})
        return await self.ended()

    async def ended(self) -> Self:
        await self._task
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> httpx.Headers:
        return httpx.Headers(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def complete(self) -> bool:
        """Whether the application sent the last message. A server cuts the connection otherwise."""
        last = self.sent[-1] if self.sent else {"type": "none"}
        return last["type"] == "http.response.body" and not last.get("more_body", False)

    def answer(self) -> httpx.Response:
        """Return the response as a client reads it."""
        assert self.complete
        return httpx.Response(self.status, headers=self.headers, content=self.body)


@dataclass(frozen=True)
class Kit:
    """Client of a registry, with the request sequences of real clients."""

    http: httpx.AsyncClient

    def speak(
        self,
        method: str,
        target: str,
        headers: dict[str, str] | None = None,
        on_send: Callable[[Exchange], Awaitable[None]] | None = None,
    ) -> Exchange:
        """Start a request whose body the test delivers."""
        transport = self.http._transport
        assert isinstance(transport, httpx.ASGITransport)
        return Exchange(transport.app, method, target, headers or {}, on_send)

    async def push_blob(self, name: str, data: bytes, algorithm: str = "sha256") -> Digest:
        digest = Digest.of(data, algorithm)
        answer = await self.http.post(
            f"/v2/{name}/blobs/uploads/", params={"digest": str(digest)}, content=data
        )
        assert answer.status_code == 201, answer.text
        return digest

    async def start_upload(self, name: str) -> str:
        answer = await self.http.post(f"/v2/{name}/blobs/uploads/")
        assert answer.status_code == 202, answer.text
        return answer.headers["Location"]

    async def put_manifest(
        self, name: str, reference: str, raw: bytes, **more: Any
    ) -> httpx.Response:
        headers = {"Content-Type": media_type_of(raw), **more.pop("headers", {})}
        return await self.http.put(
            f"/v2/{name}/manifests/{reference}", content=raw, headers=headers, **more
        )

    async def push_image(
        self, name: str, reference: str, seed: str = "", **more: Any
    ) -> tuple[Digest, bytes]:
        """Push a small image with two layers, and return its digest and manifest."""
        config = json.dumps({"architecture": "amd64", "os": "linux", "seed": seed}).encode()
        layers = [f"layer one {seed}".encode(), f"layer two {seed}".encode()]
        for data in (config, *layers):
            await self.push_blob(name, data)
        raw = image_manifest(config, layers, **more)
        digest = Digest.of(raw)
        answer = await self.put_manifest(name, reference or str(digest), raw)
        assert answer.status_code == 201, answer.text
        return digest, raw


def codes(answer: httpx.Response) -> list[str]:
    """Return the error codes of a response in the form of the OCI specification."""
    assert answer.headers["Content-Type"] == "application/json"
    entries = answer.json()["errors"]
    assert all(set(entry) == {"code", "message", "detail"} for entry in entries)
    return [entry["code"] for entry in entries]


def require_session(answer: httpx.Response, status: int, name: str, received: int) -> str:
    """Check the headers of a response about an upload session, and return its location."""
    assert answer.status_code == status, answer.text
    upload = answer.headers["Docker-Upload-UUID"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", upload)
    location = str(answer.headers["Location"])
    assert location == f"/v2/{name}/blobs/uploads/{upload}"
    assert answer.headers["Range"] == f"0-{max(0, received - 1)}"
    return location


def require_created(answer: httpx.Response, name: str, digest: Digest) -> None:
    """Check the response to a request that added the blob `digest` to the repository."""
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == f"/v2/{name}/blobs/{digest}"
    assert answer.headers["Docker-Content-Digest"] == str(digest)
    assert answer.content == b""


def read_parts(media_type: str, body: bytes) -> list[tuple[str, bytes]]:
    """Return the `Content-Range` and the bytes of each part of a `multipart/byteranges` body."""
    kind, _, boundary = media_type.partition("; boundary=")
    assert kind == "multipart/byteranges"
    first, *parts, last = b"\r\n".join([b"", body]).split(f"\r\n--{boundary}".encode())
    assert (first, last) == (b"", b"--\r\n")
    found = []
    for part in parts:
        head, _, data = part.partition(b"\r\n\r\n")
        start, kind, where = head.decode().split("\r\n")
        assert (start, kind) == ("", "Content-Type: application/octet-stream")
        assert where.startswith("Content-Range: ")
        found.append((where.removeprefix("Content-Range: "), data))
    return found


async def count_sessions(database: Database) -> int:
    query = sa.select(sa.func.count()).select_from(tables.uploads)
    return await database.read(lambda tx: int(tx.execute(query).scalar_one()))


def list_stored(driver: Driver) -> list[str]:
    """Return the keys of all objects in the store."""
    if isinstance(driver, MemoryDriver):
        return sorted(driver.objects)
    if isinstance(driver, S3Driver):
        return list_bucket(driver)
    assert isinstance(driver, LocalDriver)
    root = driver.path("")
    return sorted(str(path.relative_to(root)) for path in root.glob("blobs/*/*/*"))


def list_bucket(driver: S3Driver, below: str = "blobs/") -> list[str]:
    """Return the keys of all objects in the bucket below the prefix of the driver."""
    bucket = driver._bucket
    client = bucket._client.reads.client()
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=bucket._client._bucket, Prefix=f"{bucket._prefix}{below}"
    )
    found = [item["Key"] for page in pages for item in page.get("Contents", [])]
    return sorted(key.removeprefix(bucket._prefix) for key in found)


def list_open_files(below: Path) -> list[str]:
    """Return the files below a folder that this process has open.

    Other open files are ignored, because they may change at any time.
    """
    names = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing itself
            names.append(str(descriptor.readlink()))
    return sorted(name for name in names if f"{name}/".startswith(f"{below}/"))


def find_job(opened: Runtime, name: str, *, upload_expiry: float = 86_400) -> Job:
    """Return a job of the registry by its name."""
    jobs = list_jobs(
        opened.registry,
        opened.access,
        upload_expiry=upload_expiry,
        audit_keep=86_400,
        gc_interval=60,
    )
    return next(job for job in jobs if job.name == name)
