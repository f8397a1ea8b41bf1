"""Several registries with the same content, of which the first that answers is used."""

import contextlib
from collections.abc import AsyncIterator

import pytest

from registry.client import failover
from registry.client.breaker import BreakerState
from registry.client.failover import Failover
from registry.errors import UpstreamDeniedError, UpstreamUnavailableError, UpstreamUnknownError
from registry.oci.media_types import OCI_MANIFEST
from storage.digest import Digest
from tests.client.conftest import REPOSITORY, SHORT, TAG, calling
from tests.support.servers.hostile import Hostile, Script, hostile, response, say, stall

pytestmark = pytest.mark.anyio

BLOB = b"a layer" * 100
MANIFEST = b"{}"


DOWN = say(response(status="503 Down"))
ANSWERS = say(response(MANIFEST, f"Content-Type: {OCI_MANIFEST}"))
TAGS = say(response(b'{"tags": ["a", "b"]}'))


@contextlib.asynccontextmanager
async def pair(first: Script, second: Script) -> AsyncIterator[tuple[Failover, Hostile, Hostile]]:
    """Yield a client of two registries, and both of them."""
    async with (
        hostile(first) as one,
        hostile(second) as two,
        calling(one.url, deadlines=SHORT) as upstream,
        calling(two.url, deadlines=SHORT) as other,
    ):
        yield Failover([upstream, other]), one, two


async def test_the_first_answers() -> None:
    async with pair(ANSWERS, ANSWERS) as (client, one, two):
        assert (await client.get_manifest(REPOSITORY, TAG)).body == MANIFEST
        assert len(one.heads) == 1
        assert two.heads == []


@pytest.mark.parametrize("script", [DOWN, say(), stall()], ids=["503", "closes", "stalls"])
async def test_the_second_answers_while_the_first_does_not(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failover, "PATIENCE_S", 0.5)
    async with pair(script, ANSWERS) as (client, one, two):
        assert (await client.get_manifest(REPOSITORY, TAG)).body == MANIFEST
        one.script, two.script = ANSWERS, DOWN
        assert (await client.get_manifest(REPOSITORY, TAG)).body == MANIFEST


async def test_a_first_that_stalls_is_not_asked_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failover, "PATIENCE_S", 0.2)
    async with pair(stall(), ANSWERS) as (client, one, _):
        for _ in range(10):
            await client.get_manifest(REPOSITORY, TAG)
        assert client.breaker.state is BreakerState.OPEN
        assert len(one.heads) == 5


@pytest.mark.parametrize(
    ("status", "error"), [("404 No", UpstreamUnknownError), ("403 No", UpstreamDeniedError)]
)
async def test_the_first_says_what_does_not_exist(status: str, error: type[Exception]) -> None:
    async with pair(say(response(status=status)), ANSWERS) as (client, _, two):
        with pytest.raises(error):
            await client.get_manifest(REPOSITORY, TAG)
        assert two.heads == []


async def test_the_second_cannot_say_that_something_does_not_exist() -> None:
    async with pair(DOWN, say(response(status="404 No"))) as (client, one, two):
        with pytest.raises(UpstreamUnavailableError, match=one.url.removeprefix("http://")):
            await client.head_manifest(REPOSITORY, TAG)
        assert len(two.heads) == 1


async def test_a_blob() -> None:
    digest = Digest.of(BLOB)
    async with pair(DOWN, say(response(BLOB))) as (client, one, _):
        async with client.open_blob(REPOSITORY, digest, size=len(BLOB)) as body:
            assert b"".join([piece async for piece in body]) == BLOB
        assert await client.head_blob(REPOSITORY, digest) == len(BLOB)
        assert len(one.heads) == 2


async def test_tags() -> None:
    async with pair(DOWN, TAGS) as (client, one, two):
        assert [str(tag) async for tag in client.iter_tags(REPOSITORY)] == ["a", "b"]
        one.script, two.script = TAGS, DOWN
        assert [str(tag) async for tag in client.iter_tags(REPOSITORY)] == ["a", "b"]


async def test_no_tags_are_an_answer() -> None:
    async with pair(say(response(b'{"tags": []}')), TAGS) as (client, _, two):
        assert [tag async for tag in client.iter_tags(REPOSITORY)] == []
        assert two.heads == []


async def test_both_are_tested_and_closed() -> None:
    async with pair(say(response()), DOWN) as (client, _, two):
        with pytest.raises(UpstreamUnavailableError, match=two.url.removeprefix("http://")):
            await client.ping()
        two.script = say(response())
        await client.ping()
        await client.close()
