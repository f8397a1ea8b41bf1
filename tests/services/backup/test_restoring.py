"""Restoring a backup into an empty location, completely or not at all."""

import asyncio
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command

from registry.metadata.content.blobs import BlobRow
from registry.metadata.engine import migrate
from registry.services.backup import snapshot
from registry.services.content.blob_writer import BlobWriter
from storage.digest import Digest
from storage.errors import StoreFullError
from tests.services.backup.conftest import Make, Place
from tests.services.backup.test_verifying import file_of, flip
from tests.support.audit_log import read_audit
from tests.support.kit import list_stored
from tests.support.pushing import blob_bytes

pytestmark = pytest.mark.anyio

NAME = "team/app"
BLOBS = [blob_bytes(f"blob {n}", 2000 + n) for n in range(6)]


@pytest.fixture
async def place(make: Make, target: Path) -> Place:
    """Return a registry that has a backup."""
    place = make("a")
    async with place.opened() as api:
        for data in BLOBS:
            await api.push_blob(NAME, data)
        await api.push_image(NAME, "v1", "one")
        await place.run("create", target)
    return place


async def require_whole(place: Place) -> None:
    async with place.opened() as api:
        assert (await api.http.get(f"/v2/{NAME}/manifests/v1")).status_code == 200
        for data in BLOBS:
            assert (await api.http.get(f"/v2/{NAME}/blobs/{Digest.of(data)}")).content == data
        assert await api.opened.registry.blobs.count_damaged() == 0
        await api.push_image(NAME, "v2", "two")


async def test_into_what_is_empty_alone(place: Place, make: Make, target: Path) -> None:
    other = make("b")
    async with other.opened() as api:
        await api.push_blob("mine", b"precious")
        told = await other.run("restore", target, expect=1)
        assert "another Moorage process" not in told
        assert "not empty" in told
    told = await place.run("restore", target, expect=1)
    assert "not empty" in told
    await require_whole(place)
    async with other.opened() as api:
        assert list_stored(api.opened.driver) == [
            key for key in list_stored(api.opened.driver) if Digest.of(b"precious").hex in key
        ]
        await api.push_image("mine", "v1")


@pytest.mark.parametrize("kind", ["sqlite-local", "postgres-local"])
async def test_one_that_was_broken_off_serves_nobody_and_goes_on(
    place: Place, make: Make, target: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make("b", kind, bare=True)
    replace, moved = BlobWriter.replace, 0

    async def fail_at_third(
        self: BlobWriter, blob: BlobRow, body: AsyncIterable[bytes], retain_old_for: float | None
    ) -> bool:
        nonlocal moved
        moved += 1
        if moved == 3:
            raise StoreFullError("no space left on the storage disk")
        return await replace(self, blob, body, retain_old_for)

    with monkeypatch.context() as failing:
        failing.setattr(BlobWriter, "replace", fail_at_third)
        told = await other.run("restore", target, "--parallel", "1", expect=1)
    assert "no space left on the storage disk" in told
    await other.require_closed()
    # An interrupted restore cannot continue from another backup.
    await place.run("create", target)
    told = await other.run("restore", target, "--snapshot", newest(target), expect=1)
    assert "into this database is not complete" in told
    done = await other.ask("restore", target)
    assert (done["complete"], done["copied"]["blobs"], done["missing"]) == (True, 7, [])
    await require_whole(other)
    async with other.opened() as api:
        await api.opened.registry.deletions.sweep()
        rows = await api.opened.database.read(
            lambda tx: list(tx.execute(sa.text("SELECT key FROM blobs")).scalars())
        )
        assert sorted(rows) == list_stored(api.opened.driver)
    (*_, event) = await audit_log(other)
    assert (event["kind"], event["target"]) == ("backup.restore", done["snapshot"])


async def audit_log(place: Place) -> list[dict[str, Any]]:
    async with place.opened() as api:
        found = await read_audit(api.opened.access.audit)
        return [{"kind": each.kind, "target": each.target} for each in found]


def newest(target: Path) -> str:
    return max(path.name for path in (target / "snapshots").iterdir())


async def test_a_backup_with_damage_opens_nothing_unless_that_is_wanted(
    place: Place, make: Make, target: Path
) -> None:
    del place
    other = make("b")
    flip(file_of(target, BLOBS[0]))
    file_of(target, BLOBS[1]).unlink()
    wrong = sorted(str(Digest.of(data)) for data in BLOBS[:2])
    done = await other.ask("restore", target, expect=1)
    assert (done["complete"], done["missing"], done["copied"]["blobs"]) == (False, wrong, 7)
    assert "--allow-missing" in await other.run("restore", target, expect=1)
    await other.require_closed()
    done = await other.ask("restore", target, "--allow-missing", expect=1)
    assert (done["complete"], done["missing"], done["copied"]["blobs"]) == (True, wrong, 0)
    async with other.opened() as api:
        for data in BLOBS[:2]:
            path = f"/v2/{NAME}/blobs/{Digest.of(data)}"
            assert (await api.http.get(path)).status_code == 404
            await api.push_blob(NAME, data)
            assert (await api.http.get(path)).content == data
        assert await api.opened.registry.blobs.count_damaged() == 0


async def test_one_of_an_older_version_is_brought_up_to_date(
    place: Place, make: Make, target: Path
) -> None:
    del place
    name = newest(target)
    folder = target / "snapshots" / name

    def make_older() -> None:
        url = f"sqlite:///{folder}/metadata.db"
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            command.downgrade(migrate.alembic_config(connection), "0001")
        rewrite(folder, schema=1)

    await asyncio.to_thread(make_older)
    other = make("b")
    before = {path.name: path.stat() for path in folder.iterdir()}
    await other.run("restore", target)
    await require_whole(other)
    assert {path.name: path.stat().st_mtime for path in folder.iterdir()} == {
        file: found.st_mtime for file, found in before.items()
    }
    rewrite(folder, schema=99)
    told = await make("c").run("restore", target, expect=1)
    assert "has schema 99" in told


def rewrite(folder: Path, **changes: Any) -> None:
    """Change fields of the snapshot's description."""
    path = folder / snapshot.NAME
    found = snapshot.decode(path.read_bytes(), folder.name)
    said = {name: getattr(found, name) for name in found.__struct_fields__}
    metadata = snapshot.hash_file(folder / snapshot.METADATA)
    path.write_bytes(snapshot.encode(snapshot.Snapshot(**said | {"metadata": metadata} | changes)))


async def test_a_server_that_has_opened_the_place_is_not_deceived(
    place: Place, make: Make, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running server would not notice that its database is being filled, so restore refuses."""
    from registry.cli.kit import database as database_kit  # noqa: PLC0415
    from registry.data_dir import DataDirectory  # noqa: PLC0415

    del place
    monkeypatch.setattr(database_kit, "TIMEOUT_S", 0.1)
    other = make("b")
    served = DataDirectory(other.data)
    served.create()
    told = await other.run("restore", target, expect=1)
    assert "another Moorage process is using" in told
    served.close()
    await other.run("restore", target)
