"""Verifying a backup finds exactly the damage, and pruning removes old snapshots."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.digest import Digest
from tests.services.backup.conftest import Make, Place
from tests.support.pushing import blob_bytes

pytestmark = pytest.mark.anyio

NAME = "team/app"
BLOBS = [blob_bytes(f"blob {n}", 3000 + n) for n in range(4)]


def file_of(target: Path, data: bytes) -> Path:
    digest = Digest.of(data)
    return target / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex


def flip(path: Path, at: int = 1000) -> None:
    """Flip one bit, which leaves the length as it is."""
    path.chmod(0o600)
    raw = bytearray(path.read_bytes())
    raw[at % len(raw)] ^= 1
    path.write_bytes(raw)


@pytest.fixture
async def place(make: Make, target: Path) -> Place:
    """Return a registry with three snapshots.

    The last snapshot lacks the second blob of the first one.
    """
    place = make("a")
    async with place.opened() as api:
        for data in BLOBS[:2]:
            await api.push_blob(NAME, data)
        await place.run("create", target)
        answer = await api.http.delete(f"/v2/{NAME}/blobs/{Digest.of(BLOBS[0])}")
        assert answer.status_code == 202
        await api.push_blob(NAME, BLOBS[2])
        await place.run("create", target)
        await api.push_blob(NAME, BLOBS[3])
        await place.run("create", target)
    return place


async def list_ids(place: Place, target: Path) -> list[str]:
    return [each["id"] for each in (await place.ask("list", target))["snapshots"]]


async def test_a_copy_without_empty_folders_is_as_good(
    place: Place, make: Make, target: Path
) -> None:
    """Buckets have no empty folders, and many tools leave them out."""
    for folder in sorted(target.rglob("*"), reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    assert (await place.ask("verify", target))["problems"] == []
    await make("b").run("restore", target)
    async with place.opened() as api:
        await api.push_blob(NAME, b"of another folder")
    assert (await place.ask("create", target))["copied"]["blobs"] == 1
    assert len((await place.ask("prune", target, "--keep-last", "1"))["snapshots"]) == 3
    assert (await place.ask("verify", target))["problems"] == []


async def test_only_what_is_wrong_is_found(place: Place, target: Path) -> None:
    whole = await place.ask("verify", target)
    first, second, third = whole["snapshots"]
    assert (whole["problems"], whole["blobs"], whole["bytes"]) == ([], 4, sum(map(len, BLOBS)))
    flip(file_of(target, BLOBS[1]))
    file_of(target, BLOBS[3]).unlink()
    path = file_of(target, BLOBS[2])
    path.chmod(0o600)
    path.write_bytes(BLOBS[2][:-1])
    told = await place.ask("verify", target, expect=1)
    found = {(each["snapshot"], each["what"], each["reason"]) for each in told["problems"]}
    flipped, cut, gone = (str(Digest.of(data)) for data in BLOBS[1:])
    assert found == {
        *((name, flipped, "damaged") for name in (first, second, third)),
        *((name, cut, "damaged") for name in (second, third)),
        (third, gone, "missing"),
    }
    assert len(told["problems"]) == len(found)
    alone = await place.ask("verify", target, "--snapshot", first, expect=1)
    assert [(each["snapshot"], each["what"]) for each in alone["problems"]] == [(first, flipped)]
    text = await place.run("verify", target, expect=1)
    assert f"{third}: {gone} is missing" in text
    # The next backup copies missing and short blobs again. A damaged blob must be removed first.
    file_of(target, BLOBS[1]).unlink()
    assert (await place.ask("create", target))["copied"]["blobs"] == 3
    assert (await place.ask("verify", target))["problems"] == []


SPOILS: dict[str, Callable[[Path], object]] = {
    "metadata.db": lambda folder: flip(folder / "metadata.db"),
    "metadata.db is missing": lambda folder: (folder / "metadata.db").unlink(),
    "snapshot.json": lambda folder: (folder / "snapshot.json").write_text(
        (folder / "snapshot.json").read_text().replace('"tags": 0', '"tags": 9')
    ),
    "snapshot.json is missing": lambda folder: (folder / "snapshot.json").unlink(),
    "snapshot.json is no JSON": lambda folder: (folder / "snapshot.json").write_text("{"),
}


@pytest.mark.parametrize("name", SPOILS)
async def test_a_snapshot_that_was_changed_is_found_and_not_used(
    place: Place, target: Path, make: Make, name: str
) -> None:
    ids = await list_ids(place, target)
    SPOILS[name](target / "snapshots" / ids[1])
    told = await place.ask("verify", target, expect=1)
    assert [(each["snapshot"], each["what"]) for each in told["problems"]] == [
        (ids[1], name.partition(" ")[0])
    ]
    other = make("b")
    words = await other.run("restore", target, "--snapshot", ids[1], expect=1)
    assert "snapshot" in words
    # Its blobs are unknown, so nothing is removed until this snapshot itself is to be removed.
    assert "nothing was deleted" in await place.run("prune", target, "--keep-last", "2", expect=1)
    assert len(list(target.glob("blobs/*/*/*"))) == 4
    assert (await place.ask("prune", target, "--keep-last", "1"))["snapshots"] == ids[:2]
    await other.run("restore", target)


async def test_a_format_of_later_is_refused(place: Place, target: Path) -> None:
    (*_, newest) = await list_ids(place, target)
    path = target / "snapshots" / newest / "snapshot.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    assert "has format 2" in await place.run("restore", target, "--snapshot", newest, expect=1)


async def test_old_snapshots_go_with_what_only_they_need(place: Place, target: Path) -> None:
    first, second, third = await list_ids(place, target)
    # The deleted blob still has a row, because it is not collected yet. Another file has no row.
    stray = file_of(target, b"stray")
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"stray")
    note = target / "blobs" / "sha256" / "00" / "note"
    note.write_text("of somebody")
    (target / "snapshots" / ".DS_Store").touch()
    would = await place.ask("prune", target, "--keep-last", "2", "--dry-run")
    assert would == {"snapshots": [first], "blobs": 1, "bytes": 5}
    assert stray.exists()
    assert await place.ask("prune", target, "--keep-last", "2") == would
    assert not stray.exists()
    assert note.exists()
    assert await list_ids(place, target) == [second, third]
    assert (await place.ask("verify", target))["problems"] == []
    assert "--keep-last" in await place.run("prune", target, "--keep-last", "0", expect=1)


async def test_pruning_that_was_broken_off_goes_on(
    place: Place, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = await list_ids(place, target)
    shutil.rmtree(target / "snapshots" / second)  # Now only the other snapshots need its blobs.

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as failing:
        failing.setattr(shutil, "rmtree", fail)
        assert "Input/output" in await place.run("prune", target, "--keep-last", "1", expect=1)
    assert await list_ids(place, target) == [third]
    assert (await place.ask("verify", target))["problems"] == []
    await place.run("prune", target, "--keep-last", "1")
    assert [path.name for path in (target / "snapshots").iterdir()] == [third]
    assert first not in await place.run("list", target)
