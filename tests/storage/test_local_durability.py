"""The order, the modes and the failures of a durable write to a disk."""

from pathlib import Path

import pytest

from storage.local.driver import LocalDriver
from tests.storage.stored_files import mode_of, put

pytestmark = pytest.mark.anyio


class TestDurableWrite:
    """The order of a durable write: all bytes, fsync, rename, fsync of the directory."""

    async def test_order(
        self, local: LocalDriver, session: str, key: str, calls: list[tuple[str, str]]
    ) -> None:
        upload = await local.claim(session)
        await upload.append(b"one", None)
        await upload.append(b"two", None)
        staged, shard = f"staging/{session}", str(Path(key).parent)
        assert calls == [("pwrite", staged), ("pwrite", staged)]
        calls.clear()
        await upload.finish(key)
        assert calls == [
            ("fsync", staged),
            ("rename", staged),
            ("fchmod", key),
            ("fsync", shard),
        ]

    async def test_sync_makes_the_name_durable_too(
        self, local: LocalDriver, session: str, calls: list[tuple[str, str]]
    ) -> None:
        upload = await local.claim(session)
        await upload.append(b"one", None)
        calls.clear()
        await upload.sync()
        assert calls == [("fsync", f"staging/{session}"), ("fsync", "staging")]
        await upload.release()

    async def test_sync_of_the_bytes_leaves_out_the_name(
        self, local: LocalDriver, session: str, calls: list[tuple[str, str]]
    ) -> None:
        upload = await local.claim(session)
        staged = f"staging/{session}"
        await upload.append_and_sync(b"one", None)
        assert calls == [("pwrite", staged), ("fsync", staged)]
        calls.clear()
        await upload.sync_bytes()
        assert calls == []
        await upload.append(b"two", None)
        await upload.sync_bytes()
        assert calls == [("pwrite", staged), ("fsync", staged)]
        await upload.release()

    async def test_synced_bytes_are_not_synced_again(
        self, local: LocalDriver, session: str, key: str, calls: list[tuple[str, str]]
    ) -> None:
        upload = await local.claim(session)
        await upload.append_and_sync(b"one", None)
        await upload.release()
        upload = await local.claim(session)
        await upload.resume(3)
        calls.clear()
        await upload.finish(key)
        shard = str(Path(key).parent)
        assert calls == [("rename", f"staging/{session}"), ("fchmod", key), ("fsync", shard)]

    @pytest.mark.parametrize("change", ["append", "truncate", "drop", "none"])
    async def test_changed_bytes_are_synced(
        self, local: LocalDriver, session: str, key: str, calls: list[tuple[str, str]], change: str
    ) -> None:
        """Also the bytes of a new file, which is empty but was never synced."""
        upload = await local.claim(session)
        await upload.append_and_sync(b"" if change == "none" else b"one", None)
        await upload.release()
        upload = await local.claim(session)
        await upload.resume({"drop": 2, "none": 0}.get(change, 3))
        if change == "append":
            await upload.append(b"two", None)
        elif change == "truncate":
            await upload.truncate(1)
        calls.clear()
        await upload.finish(key)
        assert ("fsync", f"staging/{session}") in calls

    async def test_delete_is_durable(
        self, local: LocalDriver, session: str, key: str, calls: list[tuple[str, str]]
    ) -> None:
        await put(local, session, key)
        for _ in range(2):  # the repeated delete does the same
            calls.clear()
            await local.delete(key)
            assert calls == [("unlink", key), ("fsync", str(Path(key).parent))]

    async def test_modes(self, local: LocalDriver, session: str, key: str, root: Path) -> None:
        upload = await local.claim(session)
        await upload.append(b"data", None)
        assert mode_of(root / "staging" / session) == 0o600
        await upload.finish(key)
        assert mode_of(local.path(key)) == 0o400

    async def test_lies_where_the_layout_says(
        self, local: LocalDriver, session: str, key: str, root: Path
    ) -> None:
        upload = await local.claim(session)
        await upload.append(b"data", None)
        assert (root / "staging" / session).read_bytes() == b"data"
        await upload.finish(key)
        assert (root / key).read_bytes() == b"data"
        assert list((root / "staging").iterdir()) == []
