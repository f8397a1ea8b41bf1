"""Tests of the work per request: no statement is built, and SQL takes one hop to a thread."""

import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.sql.compiler import SQLCompiler

from registry.http import body
from registry.metadata.engine.database import Database
from registry.oci.media_types import OCI_MANIFEST
from storage.digest import Digest
from storage.local.threads import DiskThreads
from tests.api.conftest import Api, Started
from tests.support.kit import descriptor, image_manifest, index_manifest

pytestmark = pytest.mark.anyio

NAME = "team/app"


@pytest.fixture
def driver() -> str:
    return "local"


@dataclass
class Work:
    """The work that requests caused.

    `built` has the functions that ran a statement through SQLAlchemy. `hops` counts the reads and
    the transactions, each of which is a hop to a thread, and `disk_hops` the jobs on files.
    """

    built: list[str] = field(default_factory=list)
    hops: int = 0
    disk_hops: int = 0


@contextmanager
def watching() -> Iterator[Work]:
    """Yield the work that is done within the context."""
    work = Work()
    execute, compile_, read, write = (
        sa.Connection.execute,
        SQLCompiler.__init__,
        Database.read,
        Database.write,
    )

    def note_built(*args: Any, **options: Any) -> Any:
        frame = sys._getframe(1)
        while frame.f_code.co_filename.endswith("transaction.py") and frame.f_back:
            frame = frame.f_back
        path = frame.f_code.co_filename.rpartition("/registry/")[2]
        work.built.append(f"{path}:{frame.f_code.co_name}")
        return execute(*args, **options)

    def note_compiled(*args: Any, **options: Any) -> None:
        work.built.append("compiled")
        compile_(*args, **options)

    async def note_read(*args: Any, **options: Any) -> Any:
        work.hops += 1
        return await read(*args, **options)

    async def note_write(*args: Any, **options: Any) -> Any:
        work.hops += 1
        return await write(*args, **options)

    run_writer, run_reader = DiskThreads.write, DiskThreads.read

    async def note_disk_write(*args: Any, **options: Any) -> Any:
        work.disk_hops += 1
        return await run_writer(*args, **options)

    async def note_disk_read(*args: Any, **options: Any) -> Any:
        work.disk_hops += 1
        return await run_reader(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DiskThreads, "write", note_disk_write)
        patch.setattr(DiskThreads, "read", note_disk_read)
        patch.setattr(sa.Connection, "execute", note_built)
        patch.setattr(SQLCompiler, "__init__", note_compiled)
        patch.setattr(Database, "read", note_read)
        patch.setattr(Database, "write", note_write)
        yield work


class Client:
    """Requests of clients. Each number gives other content of the same form."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def image(self, number: int, **more: Any) -> tuple[bytes, list[bytes]]:
        blobs = [f"{number}-{part}".encode() for part in ("config", "layer", "other")]
        return image_manifest(blobs[0], blobs[1:], **more), blobs

    async def push_blobs(self, number: int) -> None:
        for blob in self.image(number)[1]:
            await self.api.push_blob(NAME, blob)

    async def put(self, reference: str, raw: bytes) -> None:
        answer = await self.api.put_manifest(NAME, reference, raw)
        assert answer.status_code == 201, answer.text


Step = Callable[[Client, int], Awaitable[None]]


async def put_image(c: Client, number: int) -> None:
    await c.put(f"v{number}", c.image(number)[0])


async def put_index(c: Client, number: int) -> None:
    await c.put(f"index{number}", index_manifest([c.image(number)[0]]))


async def put_referrer(c: Client, number: int) -> None:
    subject = descriptor(c.image(number)[0], OCI_MANIFEST)
    raw, _ = c.image(number, subject=subject, annotations={"a": "b"})
    await c.put(str(Digest.of(raw)), raw)


def request(path: str, method: str = "GET", status: int = 200) -> Step:
    """Return a request about the image of a number."""

    async def step(c: Client, number: int) -> None:
        raw, blobs = c.image(number)
        known = {"manifest": Digest.of(raw), "blob": Digest.of(blobs[1])}
        known["index"] = Digest.of(index_manifest([raw]))
        target = path.format(name=NAME, number=number, **known)
        answer = await c.api.http.request(method, f"/v2/{target}")
        assert answer.status_code == status, answer.text

    return step


STEPS: dict[str, tuple[Step, int]] = {
    "image": (put_image, 1),
    "index": (put_index, 1),
    "referrer": (put_referrer, 1),
    "base": (request(""), 0),
    "manifest by tag": (request("{name}/manifests/v{number}"), 1),
    "manifest by tag again": (request("{name}/manifests/v{number}"), 0),
    "manifest by digest": (request("{name}/manifests/{index}"), 1),
    "manifest HEAD": (request("{name}/manifests/v{number}", "HEAD"), 0),
    "blob": (request("{name}/blobs/{blob}"), 1),
    "blob HEAD": (request("{name}/blobs/{blob}", "HEAD"), 1),
    "tags": (request("{name}/tags/list?n={number}"), 1),
    "tags after one": (request("{name}/tags/list?n=2&last=v{number}"), 1),
    "referrers": (request("{name}/referrers/{manifest}"), 1),
    "referrers of a type": (request("{name}/referrers/{manifest}?artifactType=a/b"), 1),
    "catalog": (request("_catalog?n={number}"), 1),
    "catalog after one": (request("_catalog?n=2&last=r{number}"), 1),
    "delete of a tag": (request("{name}/manifests/v{number}", "DELETE", 202), 1),
    "delete of an index": (request("{name}/manifests/{index}", "DELETE", 202), 1),
    "delete of a manifest": (request("{name}/manifests/{manifest}", "DELETE", 202), 1),
}
"""Requests in the order in which they are sent, with the number of hops for SQL."""


async def test_no_statement_is_built_and_sql_takes_one_hop(start_api: Started) -> None:
    async with start_api({"content.allow_delete": "true"}) as api:
        client = Client(api)
        for number in (1, 2, 3):
            with watching() as work:
                await client.push_blobs(number)
            assert number == 1 or work.built == []
            for name, (step, hops) in STEPS.items():
                with watching() as work:
                    await step(client, number)
                if number == 1:
                    continue  # compiles
                assert (name, work.built) == (name, [])
                assert (name, work.hops) == (name, hops)


HOPS_ON_SQLITE = {"POST": (1, 0), "PATCH": (1, 2), "PUT": (0, 1)}
"""Hops for SQL and to the disk, for a new blob sent as Docker does.

POST inserts the session. PATCH locks its file, writes and syncs the bytes, and saves the session.
PUT takes one job, which publishes the file and is passed on to link the blob. So does a PATCH whose
body has arrived (tests/api/uploads/test_arrived_bodies.py). The session is still in memory.
"""

HOPS_ON_POSTGRES = {"POST": (1, 0), "PATCH": (2, 3), "PUT": (2, 2)}
"""The same. Both read the session, and PATCH also syncs the folder of the file."""


async def test_the_hops_of_a_push(start_api: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    # Over the wire, it depends on timing whether the body of a PATCH has arrived.
    monkeypatch.setattr(body, "LARGEST_WHOLE", 0)
    hops: dict[str, tuple[int, int]] = {}
    async with start_api() as api:
        for data in (b"a first blob", b"another blob"):
            location = f"/v2/{NAME}/blobs/uploads/"
            requests: dict[str, dict[str, Any]] = {
                "POST": {},
                "PATCH": {"content": data},
                "PUT": {"params": {"digest": str(Digest.of(data))}},
            }
            for method, options in requests.items():
                with watching() as work:
                    answer = await api.http.request(method, location, **options)
                assert answer.is_success, answer.text
                location = answer.headers["location"]
                hops[method] = (work.hops, work.disk_hops)
        assert hops == (HOPS_ON_SQLITE if api.opened.database.embedded else HOPS_ON_POSTGRES)


async def test_a_statement_that_is_built_is_seen(start_api: Started) -> None:
    """Control: a statement that SQLAlchemy runs is counted with the function that built it."""
    async with start_api() as api:
        with watching() as work:
            await api.opened.database.read(lambda tx: tx.execute(sa.select(sa.literal(3))).all())
    assert work.hops == 1
    assert any("test_request_work" in each for each in work.built)
