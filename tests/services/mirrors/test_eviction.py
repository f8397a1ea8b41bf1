"""Eviction: what is deleted, in which order, and what stays."""

import pytest

from registry.app import Runtime
from registry.auth.policy.patterns import RepositoryPattern
from registry.auth.policy.principals import OPERATOR
from registry.errors import ManifestInUseError, UpstreamUnavailableError
from registry.metadata.engine import leases
from registry.metadata.engine.transaction import Transaction
from registry.metadata.mirrors import mirror_usage
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.oci.tag_patterns import TagPattern
from registry.services.gc.clock_guard import ClockGuard
from registry.services.mirrors import eviction, evictor
from registry.services.mirrors.mirror import Mirror
from registry.services.mirrors.upstreams import Upstreams
from storage.digest import Digest
from tests.services.mirrors.caching import ACTOR, APP, HOUR, Cache, Image, make_bytes
from tests.support.kit import image_manifest, index_manifest, list_stored

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("place", ["sqlite-local", "postgres-s3"], indirect=True),
]

DAY = 24 * HOUR
OTHER = RepositoryName("hub/other")


@pytest.fixture(autouse=True)
def pings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let all upstreams answer, and return the mirrors whose upstreams were called."""
    called: list[str] = []

    async def ping(_: Upstreams, mirror: Mirror) -> None:
        called.append(mirror.name)

    monkeypatch.setattr(Upstreams, "ping", ping)
    return called


async def test_the_images_that_were_not_pulled_for_longest_are_evicted(
    opened: Runtime, pings: list[str]
) -> None:
    cache = await Cache.create(opened, max_size="320KiB")
    images = [Image.make(str(number)) for number in range(4)]
    for number, image in enumerate(images):
        name = OTHER if number == 2 else APP
        await cache.store_image(image, f"v{number}", name=name, age=(4 - number) * DAY * 2)
    await cache.age(images[0].digest, HOUR)  # pulled again
    assert await cache.evict() == 2
    assert await cache.list_manifests() == {images[0].digest, images[3].digest}
    assert await cache.has_blobs(images[1]) == [False, False]
    assert await cache.has_blobs(images[0]) == [True, True]
    assert pings == ["hub"]
    usage = await opened.registry.eviction.get_usage("hub")
    assert usage is not None
    assert 200_000 < usage.bytes < 220_000
    await cache.collect()
    assert len(list_stored(opened.driver)) == 4  # their grace period began with their last use
    assert await cache.evict() == 0


async def test_nothing_is_evicted_below_the_limit(opened: Runtime, pings: list[str]) -> None:
    cache = await Cache.create(opened, max_size="1MiB")
    image = Image.make("a")
    await cache.store_image(image, "v1", age=400 * DAY)
    assert await cache.evict() == 0
    assert await cache.list_manifests() == {image.digest}
    assert pings == []


async def test_bytes_of_a_recently_used_image_are_kept_for_the_grace_period(
    opened: Runtime,
) -> None:
    cache = await Cache.create(opened, max_size="1B")
    await cache.store_image(Image.make("a"), "v1", age=HOUR)
    assert await cache.evict() == 1
    await cache.collect()
    assert len(list_stored(opened.driver)) == 2


@pytest.mark.parametrize("recent_s", [eviction.RECENT_S, 0.0], ids=["protected", "control"])
async def test_an_image_that_was_just_pulled_stays(
    opened: Runtime, monkeypatch: pytest.MonkeyPatch, recent_s: float
) -> None:
    monkeypatch.setattr(eviction, "RECENT_S", recent_s)
    cache = await Cache.create(opened, max_size="1B")
    image = Image.make("a")
    await cache.store_image(image, "v1", age=HOUR)
    found = await opened.registry.manifests.get(APP, image.digest, 0.0)
    opened.registry.pulls.note(found.row.id, image.digest)  # not written yet
    assert await cache.evict() == (0 if recent_s else 1)


async def test_an_index_is_evicted_with_its_children_and_referrers(opened: Runtime) -> None:
    cache = await Cache.create(opened, max_size="1B")
    parts = [Image.make(f"part {number}") for number in range(2)]
    for part in parts:
        await cache.store_image(part)
    absent = Image.make("absent")
    index = index_manifest([parts[0].raw, parts[1].raw, absent.raw])
    subject = {"mediaType": "a/b", "digest": str(Digest.of(index)), "size": len(index)}
    await cache.store(index, "v1")
    await cache.store(image_manifest(b"{}", [], subject=subject))
    assert await cache.evict() == 1
    assert await cache.list_manifests() == set()
    assert await cache.has_blobs(parts[0]) == [False, False]


async def test_the_use_of_a_child_counts_for_its_index(opened: Runtime) -> None:
    cache = await Cache.create(opened, max_size="200KiB")
    child, other = Image.make("child"), Image.make("other", 120_000)
    await cache.store_image(child, age=DAY)
    await cache.store(index_manifest([child.raw]), "v1", age=3 * DAY)
    await cache.store_image(other, "v2", age=2 * DAY)
    assert await cache.evict() == 1
    assert child.digest in await cache.list_manifests()
    assert other.digest not in await cache.list_manifests()


async def test_what_another_image_needs_stays(opened: Runtime) -> None:
    cache = await Cache.create(opened, max_size="400KiB")
    shared = make_bytes("shared", 100_000)
    old, new = Image.make("old", shared=[shared]), Image.make("new", 250_000, shared=[shared])
    child = Image.make("child", 10_000)
    await cache.store_image(old, "v1", age=3 * DAY)
    await cache.store_image(new, "v2", age=DAY)
    await cache.store_image(child, "v1-amd64", age=DAY)
    await cache.store(index_manifest([child.raw, old.raw]), "v1-all", age=3 * DAY)
    await cache.store(index_manifest([child.raw]), "v3", age=DAY)
    evicted = await opened.registry.eviction.evict_one(
        cache.mirror, APP, Tag("v1-all"), ACTOR, dry_run=False
    )
    assert evicted.manifests == [Digest.of(index_manifest([child.raw, old.raw]))]
    assert await cache.has_blobs(child) == [True, True]
    assert await cache.evict() == 1
    assert await cache.has_blobs(old) == [False, False, True]
    assert await cache.has_blobs(new) == [True, True, True]


async def test_what_another_repository_uses_stays_in_it(opened: Runtime) -> None:
    cache = await Cache.create(opened, max_size="1B")
    image, own = Image.make("a"), RepositoryName("team/own")
    await cache.store_image(image, "v1", age=3 * DAY)
    await opened.registry.tags.copy(APP, Tag("v1"), own, Tag("v1"), OPERATOR)
    assert await cache.evict() == 1
    await cache.collect()
    assert await cache.has_blobs(image, own) == [True, True]
    assert len(list_stored(opened.driver)) == 2
    assert await cache.has_blobs(image) == [False, False]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("tag", "the tag mine was set in this registry"),
        ("moved", "the tag v1 was set in this registry"),
        ("hold", "evidence"),
        ("immutable", "are immutable"),
        ("fill", "is being fetched"),
        ("signature", "it belongs to"),
    ],
)
async def test_what_is_needed_stays(opened: Runtime, kind: str, reason: str) -> None:
    cache = await Cache.create(opened, max_size="1B")
    registry, image, tag = opened.registry, Image.make("a"), "v1"
    if kind == "signature":
        subject = Image.make("subject")
        await cache.store_image(subject, "v0", age=1)
        tag = f"sha256-{subject.digest.hex}.sig"
    await cache.store_image(image, tag, age=3 * DAY)
    lease = f"{leases.FILL}{APP}/{Digest.of(image.blobs[1])}"
    if kind == "tag":
        await registry.tags.copy(APP, Tag("v1"), APP, Tag("mine"), OPERATOR)
    elif kind == "moved":
        await cache.store_image(Image.make("b"), "v2", age=3 * DAY)
        await registry.tags.copy(APP, Tag("v2"), APP, Tag("v1"), OPERATOR)
        image = Image.make("b")
    elif kind == "hold":
        await registry.holds.add(APP, image.digest, "evidence", ACTOR)
    elif kind == "immutable":
        await registry.immutable_tags.add(
            RepositoryPattern.parse("hub/**"), TagPattern("v*"), ACTOR
        )
    elif kind == "fill":
        await opened.database.write(lambda tx: leases.claim(tx, lease, "x", 60), actor="test")
    await cache.evict()
    assert image.digest in await cache.list_manifests()
    assert await cache.has_blobs(image) == [True, True]
    asked = await registry.eviction.evict_one(cache.mirror, APP, image.digest, ACTOR, dry_run=False)
    assert reason in asked.obstacle
    if kind == "fill":
        await opened.database.write(lambda tx: leases.release(tx, lease, "x"), actor="test")
        assert await cache.evict() == 1


async def test_nothing_is_evicted_while_the_upstream_fails(
    opened: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ping(_: Upstreams, mirror: Mirror) -> None:
        raise UpstreamUnavailableError(f"{mirror.url} does not answer")

    cache = await Cache.create(opened, max_size="1B", max_age="1d")
    await cache.store_image(Image.make("a"), "v1", age=3 * DAY)
    with monkeypatch.context() as patch:
        patch.setattr(Upstreams, "ping", ping)
        assert await cache.evict() == 0
    assert await cache.evict() == 1


async def test_images_that_are_not_pulled_for_a_time_are_evicted(
    opened: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def jumped(_: ClockGuard) -> None:
        return None

    cache = await Cache.create(opened, max_age="10d")
    old, new = Image.make("old"), Image.make("new")
    await cache.store_image(old, "v1", age=11 * DAY)
    await cache.store_image(new, "v2", age=9 * DAY)
    with monkeypatch.context() as patch:
        patch.setattr(ClockGuard, "cutoff", jumped)
        assert await cache.evict() == 0
    assert await cache.evict() == 1
    assert await cache.list_manifests() == {new.digest}


@pytest.mark.parametrize("step", ["before", "after"])
async def test_an_interrupted_eviction_is_continued(
    opened: Runtime, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The job is killed at its second image, or before it records the size."""
    cache = await Cache.create(opened, max_size="320KiB")
    images = [Image.make(str(number)) for number in range(5)]
    for number, image in enumerate(images):
        await cache.store_image(image, f"v{number}", age=(5 - number) * DAY)
    real, calls = evictor.evict, []

    def evict(tx: Transaction, *rest: object) -> object:
        calls.append(rest)
        found = real(tx, *rest)  # type: ignore[arg-type]
        if step == "before" and len(calls) == 2:
            raise RuntimeError("killed")
        return found

    def put(*_: object, **__: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(evictor, "evict", evict)
        if step == "after":
            patch.setattr(mirror_usage, "put", put)
        with pytest.raises(RuntimeError, match="killed"):
            await opened.registry.eviction.run()
    assert len(await cache.list_manifests()) == (4 if step == "before" else 2)
    for image in images:
        is_there = image.digest in await cache.list_manifests()
        assert await cache.has_blobs(image) == [is_there, is_there]
    await cache.evict()
    assert await cache.list_manifests() == {image.digest for image in images[3:]}


async def test_slices_end_in_time_and_continue(
    opened: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eviction, "SLICE_S", 0.0)
    cache = await Cache.create(opened, max_size="1B")
    for number in range(3):
        await cache.store_image(Image.make(str(number)), f"v{number}", age=DAY)
    held = Image.make("0").digest
    await opened.registry.holds.add(APP, held, "evidence", ACTOR)
    assert [await opened.registry.eviction.run() for _ in range(5)] == [1, 1, 1, 0, 0]
    assert await cache.list_manifests() == {held}


async def test_all_images_of_a_repository_are_evicted_by_hand(
    opened: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eviction, "AT_ONCE", 2)
    cache = await Cache.create(opened)
    images = [Image.make(str(number)) for number in range(3)]
    for image in images:
        await cache.store_image(image, image.blobs[0].decode(), age=1)
    other = Image.make("other")
    await cache.store_image(other, "v1", name=OTHER, age=1)
    evict_all = opened.registry.eviction.evict_all
    first = await evict_all(cache.mirror, APP, ACTOR, dry_run=True)
    assert (len(first.images), len(await cache.list_manifests())) == (2, 4)
    second = await evict_all(cache.mirror, APP, ACTOR, last=first.next, dry_run=True)
    assert [each.use.digest for each in (*first.images, *second.images)] == [
        image.digest for image in images
    ]
    assert second.next is None
    while (await evict_all(cache.mirror, APP, ACTOR, dry_run=False)).images:
        pass
    assert await cache.list_manifests() == {other.digest}
    assert all(each.bytes > 100_000 for each in first.images)


async def test_a_part_of_an_image_is_not_evicted_alone(opened: Runtime) -> None:
    cache = await Cache.create(opened)
    child = Image.make("child")
    await cache.store_image(child)
    await cache.store(index_manifest([child.raw]), "v1")
    with pytest.raises(ManifestInUseError, match="belongs to another image"):
        await opened.registry.eviction.evict_one(
            cache.mirror, APP, child.digest, ACTOR, dry_run=False
        )
