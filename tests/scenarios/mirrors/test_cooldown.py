"""Cooldown and refresh, with a server and its upstream."""

from collections.abc import Iterator

import httpx
import pytest
import sqlalchemy as sa

from registry.metadata import tables
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from storage.digest import Digest
from tests.scenarios.mirrors.conftest import PREFIX, Image, Place, push
from tests.support.kit import Kit, codes

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

DAY = 86_400.0
OFF = ["--cooldown", "0s", "--no-serve-new-tags", "--tag-ttl", "1h", "--negative-ttl", "1m"]
ON = ["--cooldown", "3d", "--tag-ttl", "0s", "--negative-ttl", "0s"]


@pytest.fixture
def cooldown(place: Place) -> Iterator[None]:
    with place.changed(ON, OFF):
        yield


async def age(place: Place, name: str, seconds: float) -> None:
    """Move the times at which the digests of a repository were first seen back."""
    h = tables.mirror_tag_history.c
    query = sa.update(tables.mirror_tag_history).where(h.repository == f"{PREFIX}/{name}")

    def work(tx: Transaction) -> None:
        tx.execute(query.values(first_seen_at=h.first_seen_at - int(seconds * 1_000_000)))

    database = Database(f"sqlite:///{place.mirror.data}/moorage.db")
    await database.write(work, actor="test")
    await database.close()


async def pull(http: httpx.AsyncClient, name: str, reference: object = "v1") -> httpx.Response:
    return await http.get(f"/v2/{PREFIX}/{name}/manifests/{reference}")


@pytest.mark.usefixtures("cooldown")
async def test_a_new_digest_is_served_after_its_cooldown(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, old, new = "cool/moved", Image.make("old"), Image.make("new")
    await push(source, name, "v1", old)
    first = await pull(http, name)
    assert (first.status_code, codes(first)) == (404, ["MANIFEST_UNKNOWN"])
    assert "is held back until" in first.text
    assert str(Digest.of(old.raw)) in first.text
    assert (await pull(http, name, Digest.of(old.raw))).content == old.raw
    await age(place, name, 3 * DAY)
    assert (await pull(http, name)).content == old.raw
    await push(source, name, "v1", new)
    assert (await pull(http, name)).content == old.raw
    assert (await pull(http, name, Digest.of(new.raw))).content == new.raw
    assert f"{PREFIX}/{name}:v1 {Digest.of(new.raw)} until" in place.moorage(
        "mirror", "show", PREFIX
    )
    await age(place, name, 2 * DAY)
    assert (await pull(http, name)).content == old.raw
    await age(place, name, DAY)
    assert (await pull(http, name)).content == new.raw


@pytest.mark.usefixtures("cooldown")
async def test_a_digest_that_is_withdrawn_in_its_cooldown_is_never_served(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, good, bad = "cool/hijacked", Image.make("good"), Image.make("bad")
    await push(source, name, "v1", good)
    await pull(http, name)
    await age(place, name, 3 * DAY)
    assert (await pull(http, name)).content == good.raw
    await push(source, name, "v1", bad)
    assert (await pull(http, name)).content == good.raw
    await push(source, name, "v1", good)
    assert (await pull(http, name)).content == good.raw
    await age(place, name, 30 * DAY)
    assert (await pull(http, name)).content == good.raw


@pytest.mark.usefixtures("cooldown")
async def test_the_chosen_digest_may_be_gone_from_the_upstream(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name = "cool/gone"
    images = [Image.make(f"image {number}") for number in range(3)]
    for number, image in enumerate(images):
        await push(source, name, "v1", image)
        await pull(http, name)
        await age(place, name, 4 * DAY if number == 0 else 2 * DAY)
    deleted = await source.http.delete(f"/v2/{name}/manifests/{Digest.of(images[1].raw)}")
    assert deleted.status_code == 202
    assert (await pull(http, name)).content == images[0].raw


async def test_the_first_digest_can_be_served_at_once(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, old, new = "cool/first", Image.make("old"), Image.make("new")
    with place.changed([*ON, "--serve-new-tags"], OFF):
        await push(source, name, "v1", old)
        assert (await pull(http, name)).content == old.raw
        await push(source, name, "v1", new)
        assert (await pull(http, name)).content == old.raw
        await age(place, name, 3 * DAY)
        assert (await pull(http, name)).content == new.raw


async def test_a_cooldown_applies_to_what_was_cached_before(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, image = "cool/before", Image.make("before")
    await push(source, name, "v1", image)
    assert (await pull(http, name)).content == image.raw
    for blob in (image.config, image.layer):
        assert (await http.get(f"/v2/{PREFIX}/{name}/blobs/{Digest.of(blob)}")).content == blob
    with place.changed(["--cooldown", "3d"], OFF):  # the tag is still current
        assert (await pull(http, name)).status_code == 404
        place.proxy.cut()
        place.proxy.refuse()
        assert (await pull(http, name)).status_code == 404
        await age(place, name, 3 * DAY)
        assert (await pull(http, name)).content == image.raw


@pytest.mark.usefixtures("cooldown")
async def test_signatures_are_not_held_back(source: Kit, http: httpx.AsyncClient) -> None:
    name, image = "cool/signed", Image.make("signature")
    tag = f"sha256-{'0' * 64}.sig"
    await push(source, name, tag, image)
    assert (await pull(http, name, tag)).content == image.raw


async def test_refresh_looks_a_tag_up_at_once(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, old, new = "fresh/app", Image.make("old"), Image.make("new")
    place_of = f"{PREFIX}/{name}:v1"
    missing = await pull(http, name)
    assert missing.status_code == 404
    await push(source, name, "v1", old)
    said = place.moorage("mirror", "refresh", place_of)
    assert said == f"{place_of} was not cached, and is now {Digest.of(old.raw)}.\n"
    await push(source, name, "v1", new)
    assert (await pull(http, name)).content == old.raw
    place.requests()
    said = place.moorage("mirror", "refresh", place_of)
    assert said == f"{place_of} was {Digest.of(old.raw)}, and is now {Digest.of(new.raw)}.\n"
    assert place.requests()[0] == f"HEAD /v2/{name}/manifests/v1"
    assert (await pull(http, name)).content == new.raw
    said = place.moorage("mirror", "refresh", place_of)
    assert said == f"{place_of} is still {Digest.of(new.raw)}.\n"
    assert place.requests() == [f"HEAD /v2/{name}/manifests/v1"]
