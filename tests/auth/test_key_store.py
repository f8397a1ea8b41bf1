"""Storage of private keys: in files, and encrypted in either database."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.auth.keys.key_store import DatabaseKeyStore, FileKeyStore, KeyStore, is_private
from registry.errors import ConfigError
from registry.metadata import tables
from registry.metadata.engine.database import Database
from tests.metadata.rows import rows

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parent.parent.parent
SECRET = "0123456789abcdef" * 2
VALUE = b"\x00private half\xff" * 2
OWN = os.getegid()
STRANGE = OWN + 12345
PRIVACY = [
    (0o600, {STRANGE}, True),
    (0o640, {STRANGE, OWN}, True),
    (0o660, {OWN}, True),
    (0o640, {STRANGE}, False),
    (0o620, {STRANGE}, False),
    (0o604, {OWN}, False),
]
"""Mode of a file of the group OWN, the groups of a process, and whether it may use the file."""

MAKERS = 3
KEYS = 20

MAKER = f"""
import asyncio, os, sys
from pathlib import Path
from registry.auth.keys.key_store import DatabaseKeyStore, FileKeyStore
from registry.metadata.engine.database import Database

async def main(place, secret):
    database = Database(place) if secret else None
    store = DatabaseKeyStore(database, secret) if database else FileKeyStore(Path(place))
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range({KEYS}):
        print((await store.add(f"key{{number}}", os.urandom(32))).hex(), flush=True)
    if database:
        await database.close()

asyncio.run(main(*sys.argv[1:]))
"""


def make_at_once(place: str, secret: str) -> list[list[str]]:
    """Return the keys that each of several processes gets if all create the same keys at once."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MAKER, place, secret],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(MAKERS)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate(timeout=60)[0].split() for process in processes]


class Contract:
    """Behavior of every key store."""

    async def test_it_finds_what_it_keeps(self, key_store: KeyStore) -> None:
        assert await key_store.find("a") is None
        assert await key_store.add("a", VALUE) == VALUE
        assert await key_store.find("a") == VALUE
        assert await key_store.find("b") is None

    async def test_a_name_keeps_its_value(self, key_store: KeyStore) -> None:
        await key_store.add("a", VALUE)
        assert await key_store.add("a", b"another") == VALUE
        assert await key_store.find("a") == VALUE

    async def test_it_forgets(self, key_store: KeyStore) -> None:
        await key_store.add("a", VALUE)
        await key_store.add("b", VALUE)
        await key_store.remove("a")
        assert await key_store.find("a") is None
        assert await key_store.find("b") == VALUE
        await key_store.remove("a")
        assert await key_store.add("a", b"another") == b"another"

    async def test_two_makers_at_once_agree(self, key_store: KeyStore) -> None:
        values = [bytes([number]) * 32 for number in range(8)]
        for name in ("a", "b", "c"):
            kept = await asyncio.gather(*(key_store.add(name, value) for value in values))
            assert len(set(kept)) == 1
            assert kept[0] in values
            assert await key_store.find(name) == kept[0]

    async def test_makers_of_several_processes_agree(
        self, key_store: KeyStore, place: tuple[str, str]
    ) -> None:
        one, *others = make_at_once(*place)
        assert len(one) == KEYS
        assert len(set(one)) == KEYS
        assert all(other == one for other in others)
        assert [await key_store.find(f"key{number}") for number in range(KEYS)] == [
            bytes.fromhex(value) for value in one
        ]


class TestFileKeyStore(Contract):
    """A folder of files that only the owner can read."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "data" / "keys"

    @pytest.fixture
    def key_store(self, folder: Path) -> KeyStore:
        return FileKeyStore(folder)

    @pytest.fixture
    def place(self, folder: Path) -> tuple[str, str]:
        return str(folder), ""

    async def test_nobody_else_can_read(self, key_store: KeyStore, folder: Path) -> None:
        before = os.umask(0)
        try:
            await key_store.add("a", VALUE)
        finally:
            os.umask(before)
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "a").stat().st_mode & 0o777 == 0o600

    async def test_nothing_else_is_left(self, key_store: KeyStore, folder: Path) -> None:
        await key_store.add("a", VALUE)
        await key_store.add("a", b"another")
        assert [path.name for path in folder.iterdir()] == ["a"]

    @pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o666])
    async def test_a_file_that_others_can_read_is_not_used(
        self, key_store: KeyStore, folder: Path, mode: int
    ) -> None:
        await key_store.add("a", VALUE)
        (folder / "a").chmod(mode)
        with pytest.raises(ConfigError, match="chmod 600"):
            await key_store.find("a")
        (folder / "a").chmod(0o400)
        assert await key_store.find("a") == VALUE

    async def test_a_volume_whose_files_kubernetes_opens_to_its_group_is_used(
        self, key_store: KeyStore, folder: Path
    ) -> None:
        await key_store.add("a", VALUE)
        # The kubelet does the same at each mount with fsGroup: chown :GROUP, chmod ug+rw, g+s.
        for path in (folder, folder / "a"):
            os.chown(path, -1, os.getegid())
            path.chmod(path.stat().st_mode | (0o2770 if path.is_dir() else 0o660))
        assert await FileKeyStore(folder).find("a") == VALUE

    @pytest.mark.parametrize(("mode", "groups", "private"), PRIVACY)
    def test_group_bits_count_where_the_process_is_not_in_the_group(
        self, tmp_path: Path, mode: int, groups: set[int], private: bool
    ) -> None:
        (tmp_path / "a").write_bytes(VALUE)
        (tmp_path / "a").chmod(mode)
        assert is_private((tmp_path / "a").stat(), groups) is private

    async def test_what_cannot_be_read_or_written_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        key_store = FileKeyStore(tmp_path / "file" / "keys")
        with pytest.raises(ConfigError, match="Not a directory"):
            await key_store.find("a")
        with pytest.raises(ConfigError, match="Not a directory"):
            await key_store.add("a", VALUE)
        (tmp_path / "keys" / "a").mkdir(parents=True, mode=0o700)
        with pytest.raises(ConfigError, match="directory"):
            await FileKeyStore(tmp_path / "keys").find("a")


class TestDatabaseKeyStore(Contract):
    """Rows that are unreadable without the secret from the settings."""

    @pytest.fixture
    async def database(self, database_url: str, anyio_backend: str) -> AsyncIterator[Database]:
        del anyio_backend
        opened = Database(database_url)
        yield opened
        await opened.close()

    @pytest.fixture
    def key_store(self, database: Database) -> KeyStore:
        return DatabaseKeyStore(database, SECRET)

    @pytest.fixture
    def place(self, database_url: str) -> tuple[str, str]:
        return database_url, SECRET

    async def test_replicas_share_it(self, key_store: KeyStore, database_url: str) -> None:
        await key_store.add("a", VALUE)
        other = Database(database_url)
        assert await DatabaseKeyStore(other, SECRET).find("a") == VALUE
        await other.close()

    async def test_nothing_can_be_read_in_the_row(
        self, key_store: KeyStore, database: Database
    ) -> None:
        await key_store.add("a", VALUE)
        await key_store.add("b", VALUE)
        kept = {row.name: bytes(row.value) for row in await rows(database, tables.private_keys)}
        assert set(kept) == {"a", "b"}
        for sealed in kept.values():
            for readable in (VALUE, VALUE[:8], SECRET.encode(), VALUE.hex().encode()):
                assert readable not in sealed
        assert kept["a"] != kept["b"]

    async def test_another_secret_is_told(self, key_store: KeyStore, database: Database) -> None:
        await key_store.add("a", VALUE)
        stranger = DatabaseKeyStore(database, SECRET[::-1])
        with pytest.raises(ConfigError, match="does not decrypt the keys") as caught:
            await stranger.find("a")
        assert SECRET not in str(caught.value)
        with pytest.raises(ConfigError, match="does not decrypt the keys"):
            await stranger.add("a", b"another")
        assert await key_store.find("a") == VALUE

    async def test_a_row_that_was_changed_is_told(
        self, key_store: KeyStore, database: Database
    ) -> None:
        await key_store.add("a", VALUE)
        (row,) = await rows(database, tables.private_keys)
        changed = bytearray(row.value)
        changed[40] ^= 1
        work = tables.private_keys.update().values(value=bytes(changed))
        await database.write(lambda tx: tx.execute(work).rowcount, actor="")
        with pytest.raises(ConfigError, match="does not decrypt the keys"):
            await key_store.find("a")

    async def test_without_a_secret_it_names_the_remedy(self, database: Database) -> None:
        key_store = DatabaseKeyStore(database, "")
        for use in (key_store.find("a"), key_store.add("a", VALUE)):
            with pytest.raises(ConfigError, match="openssl rand -hex 32") as caught:
                await use
            assert 'auth.key_store = "file"' in caught.value.message
        assert await rows(database, tables.private_keys) == []
