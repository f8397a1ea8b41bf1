"""`gc why` lists every path that retains an object, and why an unreferenced one still exists."""

from itertools import pairwise

import pytest
import sqlalchemy as sa

from registry.errors import NotFoundError
from registry.metadata import tables
from registry.metadata.engine import leases
from registry.metadata.engine.transaction import Transaction
from registry.oci.media_types import OCI_MANIFEST
from registry.services.gc.explain import Explanation, PendingDeletion
from storage.digest import Digest
from tests.services.gc.conftest import GRACE, Yard
from tests.support.kit import descriptor, index_manifest

pytestmark = pytest.mark.anyio

LAYER = Digest.of(b"layer one ")


async def explain(yard: Yard, digest: Digest) -> Explanation:
    return await yard.opened.registry.explainer.explain(digest)


async def list_paths(yard: Yard, digest: Digest) -> list[list[tuple[str, str, str]]]:
    found = (await explain(yard, digest)).paths
    return sorted([(step.kind, step.repository, step.name) for step in path] for path in found)


async def test_every_path_from_a_tag_is_told(yard: Yard) -> None:
    image, raw = await yard.push_image("app", "v1")
    await yard.put_manifest("app", "v2", raw)
    index = index_manifest([raw])
    await yard.put_manifest("app", "all", index)
    await yard.push_image("other", "latest")
    used = ("manifest", "app", str(image))
    assert await list_paths(yard, LAYER) == [
        [("tag", "app", "all"), ("index", "app", str(Digest.of(index))), used],
        [("tag", "app", "v1"), used],
        [("tag", "app", "v2"), used],
        [("tag", "other", "latest"), ("manifest", "other", str(image))],
    ]
    assert await list_paths(yard, image) == [
        [("tag", "app", "all"), ("index", "app", str(Digest.of(index)))],
        [("tag", "app", "v1")],
        [("tag", "app", "v2")],
        [("tag", "other", "latest")],
    ]


async def test_a_referrer_is_kept_by_its_subject(sweeping: Yard) -> None:
    image, raw = await sweeping.push_image("app", "v1")
    about = {"subject": descriptor(raw, "application/vnd.oci.image.manifest.v1+json")}
    signature, _ = await sweeping.push_image("app", "", "signature", **about)
    assert await list_paths(sweeping, signature) == [
        [("tag", "app", "v1"), ("subject", "app", str(image))]
    ]


async def test_a_long_chain_of_referrers_is_told(yard: Yard) -> None:
    image, _ = await yard.push_image("app", "v1")
    chain = [image, *(Digest.of(b"referrer %d" % n) for n in range(1200))]
    [row] = await yard.list_rows(tables.manifests)
    common = {"repository_id": row.repository_id, "media_type": "a/b", "size": 1, "pushed_at": 1}
    rows = [{**common, "digest": own, "subject": last} for last, own in pairwise(chain)]

    def add(tx: Transaction) -> None:
        tx.connection.execute(sa.insert(tables.manifests), rows)

    await yard.opened.database.write(add, actor="test")
    steps = [("tag", "app", "v1"), *(("subject", "app", str(each)) for each in chain[:-1])]
    assert await list_paths(yard, chain[-1]) == [steps]


async def test_what_stays_without_a_tag_says_why(yard: Yard) -> None:
    digest, _ = await yard.push_image("app", "")
    assert await list_paths(yard, digest) == [[("untagged_rule", "app", str(digest))]]
    assert await list_paths(yard, LAYER) == [
        [("untagged_rule", "app", str(digest)), ("manifest", "app", str(digest))]
    ]
    lone = await yard.push_blob("app", b"lone")
    [[step]] = (await explain(yard, lone)).paths
    assert (step.kind, step.repository) == ("grace_period", "app")
    assert step.until is not None
    await yard.age(GRACE)
    [[step]] = (await explain(yard, lone)).paths
    assert (step.kind, step.until) == ("none", None)


async def test_a_session_with_the_same_bytes_is_told(yard: Yard) -> None:
    location = await yard.start_upload("app")
    await yard.http.patch(location, content=b"lone")
    found = await explain(yard, Digest.of(b"lone"))
    assert found.paths == []
    assert [(s.id, s.repository) for s in found.upload_sessions] == [
        (location.rpartition("/")[2], "app")
    ]


async def test_bytes_that_are_to_be_removed_wait_for_a_backup(yard: Yard) -> None:
    digest = await yard.push_blob("app", b"lone")
    await yard.age(GRACE)

    def hold(tx: Transaction) -> bool:
        return leases.claim(tx, "backup/monday", "me", 60)

    await yard.opened.database.write(hold, actor="test")
    await yard.collect()
    found = await explain(yard, digest)
    assert found.paths == []
    [key] = yard.list_stored()
    [deletion] = found.pending_deletions
    assert deletion == PendingDeletion("local", key, deletion.not_before, blocked_by_backup=True)

    def release(tx: Transaction) -> None:
        leases.release(tx, "backup/monday", "me")

    await yard.opened.database.write(release, actor="test")
    await yard.collect()
    assert yard.list_stored() == []
    with pytest.raises(NotFoundError):
        await explain(yard, digest)


async def test_paths_that_are_long_together_are_shown_in_part(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, _ = await yard.push_image("team/app", "v0")
    for n in range(1, 6):
        await yard.http.put(
            f"/v2/team/app/manifests/v{n}",
            content=(await yard.http.get("/v2/team/app/manifests/v0")).content,
            headers={"Content-Type": OCI_MANIFEST},
        )
    whole = await explain(yard, digest)
    assert (len(whole.paths), whole.has_more) == (6, False)
    for steps, paths in ((3, 3), (6, 6)):
        monkeypatch.setattr("registry.services.gc.explain.MOST_STEPS", steps)
        found = await explain(yard, digest)
        assert (len(found.paths), found.has_more) == (paths, paths < 6)
