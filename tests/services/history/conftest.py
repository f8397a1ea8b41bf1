"""The registry of the garbage collection tests, where the test controls the time."""

from collections.abc import Awaitable, Callable

import httpx
import pytest

from registry.auth.audit_log import Actor
from registry.auth.policy.patterns import RepositoryPattern
from registry.oci.names import RepositoryName
from registry.oci.tag_patterns import TagPattern
from tests.services.gc.conftest import Yard, open_yard, sweeping, yard
from tests.support.audit_log import read_audit

__all__ = ["open_yard", "sweeping", "yard"]

OPERATOR = Actor("operator")
NAME = RepositoryName("app")

Seal = Callable[[Yard, str, str], Awaitable[None]]


@pytest.fixture
def seal() -> Seal:
    """Return a function that makes tags immutable."""

    async def seal(yard: Yard, pattern: str, tags: str) -> None:
        parsed = RepositoryPattern.parse(pattern), TagPattern.parse(tags)
        await yard.opened.registry.immutable_tags.add(*parsed, OPERATOR)

    return seal


async def pull(yard: Yard, name: str, reference: object) -> str:
    """Pull an image or a whole index with all its blobs, and return its digest."""
    answer = await yard.http.get(f"/v2/{name}/manifests/{reference}")
    assert answer.status_code == 200, answer.text
    manifest = answer.json()
    for child in manifest.get("manifests", []):
        await pull(yard, name, child["digest"])
    for part in [*manifest.get("layers", []), *filter(None, [manifest.get("config")])]:
        blob = await yard.http.get(f"/v2/{name}/blobs/{part['digest']}")
        assert (blob.status_code, len(blob.content)) == (200, part["size"])
    return answer.headers["Docker-Content-Digest"]


async def delete(yard: Yard, name: str, reference: object, **headers: str) -> httpx.Response:
    return await yard.http.delete(f"/v2/{name}/manifests/{reference}", headers=headers)


async def list_audited(yard: Yard, *kinds: str) -> list[tuple[str, str]]:
    """Return the event and the target of each audit event of those kinds."""
    rows = await read_audit(yard.opened.access.audit)
    return [(row.kind, row.target) for row in rows if row.kind.startswith(kinds)]
