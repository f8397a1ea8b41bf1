"""The keys of a registry whose processes all start at once."""

import asyncio
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry.auth.credentials.secrets import new_secret
from registry.auth.keys.jose import jwk_of, thumbprint
from registry.auth.keys.key_store import DatabaseKeyStore, FileKeyStore
from registry.auth.keys.keyring import Keyring
from registry.errors import ConfigError, DatabaseUnavailableError
from registry.metadata import tables
from registry.metadata.access import signing_keys
from registry.metadata.access.signing_keys import KeyState
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from tests.metadata.rows import rows

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parent.parent.parent
SECRET = "0123456789abcdef" * 2

STARTER = """
import asyncio, sys
from registry.auth.keys.keyring import Keyring
from registry.auth.keys.key_store import DatabaseKeyStore
from registry.metadata.engine.database import Database

async def main(url, secret):
    database = Database(url)
    keyring = Keyring(database, DatabaseKeyStore(database, secret))
    print("ready", flush=True)
    sys.stdin.readline()
    await keyring.prepare()
    print((await keyring.get_hasher()).hash("probe"))
    await database.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def database(replicas: list[Database]) -> Database:
    return replicas[0]


@pytest.fixture
def keyring(database: Database) -> Keyring:
    return Keyring(database, DatabaseKeyStore(database, SECRET))


async def states(database: Database) -> list[str]:
    return sorted(key.state for key in await database.read(signing_keys.list_all))


async def active(database: Database) -> str:
    keys = await database.read(signing_keys.list_all)
    (kid,) = [key.kid for key in keys if key.state is KeyState.ACTIVE]
    return kid


async def test_the_first_start_makes_what_is_needed(keyring: Keyring, database: Database) -> None:
    await keyring.prepare()
    (key,) = await database.read(signing_keys.list_all)
    assert key.state is KeyState.ACTIVE
    assert key.kid == thumbprint(json.loads(key.jwk))
    private = await keyring.get_private(key.kid)
    assert json.loads(key.jwk) == jwk_of(private.public_key())
    assert "d" not in json.loads(key.jwk)


async def test_later_starts_make_nothing(keyring: Keyring, database: Database) -> None:
    await keyring.prepare()
    before = await rows(database, tables.private_keys), await rows(database, tables.signing_keys)
    await keyring.prepare()
    await Keyring(database, DatabaseKeyStore(database, SECRET)).prepare()
    assert before == (
        await rows(database, tables.private_keys),
        await rows(database, tables.signing_keys),
    )


async def test_replicas_that_start_at_once_share_their_keys(replicas: list[Database]) -> None:
    keyrings = [
        Keyring(replicas[number % 2], DatabaseKeyStore(replicas[number % 2], SECRET))
        for number in range(8)
    ]
    await asyncio.gather(*(keyring.prepare() for keyring in keyrings))
    assert await states(replicas[0]) == [KeyState.ACTIVE]
    secret = new_secret()
    assert len({(await keyring.get_hasher()).hash(secret.value) for keyring in keyrings}) == 1
    # Processes that lost the race kept no private key without a public half.
    kid = await active(replicas[0])
    assert {row.name for row in await rows(replicas[0], tables.private_keys)} == {"secrets", kid}
    halves = [(await keyring.get_private(kid)).private_bytes_raw() for keyring in keyrings]
    assert len(set(halves)) == 1


async def test_processes_that_start_at_once_share_their_keys(
    database_url: str, database: Database
) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", STARTER, database_url, SECRET],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    told = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(told) == 1
    assert await states(database) == [KeyState.ACTIVE]


async def test_rotation(keyring: Keyring, database: Database) -> None:
    await keyring.prepare()
    first = await active(database)
    second = await keyring.add_key()
    assert await active(database) == second != first
    assert await states(database) == [KeyState.ACTIVE, KeyState.RETIRED]
    for kid in (first, second):
        private = await Keyring(database, DatabaseKeyStore(database, SECRET)).get_private(kid)
        assert jwk_of(private.public_key())["kid"] == kid


async def test_rotations_at_once_leave_one_active_key(replicas: list[Database]) -> None:
    keyrings = [Keyring(one, DatabaseKeyStore(one, SECRET)) for one in replicas]
    await keyrings[0].prepare()
    for _ in range(3):
        await asyncio.gather(*(keyring.add_key() for keyring in keyrings * 4))
        await active(replicas[0])


async def test_a_revoked_key_is_not_made_active_again(keyring: Keyring, database: Database) -> None:
    await keyring.prepare()
    first = await active(database)
    assert await database.write(lambda tx: signing_keys.revoke(tx, first), actor="")
    await keyring.add_key()
    assert await states(database) == [KeyState.ACTIVE, KeyState.REVOKED]
    assert await active(database) != first


class Watching(DatabaseKeyStore):
    """Record the public keys that existed when a private key was stored."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, SECRET)
        self.public: dict[str, set[str]] = {}
        self._database = database

    async def add(self, name: str, value: bytes) -> bytes:
        keys = await self._database.read(signing_keys.list_all)
        self.public[name] = {key.kid for key in keys}
        return await super().add(name, value)


async def test_the_private_half_is_kept_before_the_public_one_is_seen(database: Database) -> None:
    key_store = Watching(database)
    keyring = Keyring(database, key_store)
    await keyring.prepare()
    await keyring.add_key()
    kids = [name for name in key_store.public if name != "secrets"]
    assert len(kids) == 2
    for kid in kids:
        assert kid not in key_store.public[kid]


async def test_where_no_key_can_be_kept_there_is_none(database: Database) -> None:
    with pytest.raises(ConfigError):
        await Keyring(database, DatabaseKeyStore(database, "")).prepare()
    assert await states(database) == []


async def test_a_key_of_another_machine(database: Database, tmp_path: Path) -> None:
    await Keyring(database, FileKeyStore(tmp_path / "one")).prepare()
    kid = await active(database)
    with pytest.raises(ConfigError, match='key_store = "database"') as caught:
        await Keyring(database, FileKeyStore(tmp_path / "two")).get_private(kid)
    assert kid in caught.value.message


async def test_what_is_forgotten_is_gone(keyring: Keyring, database: Database) -> None:
    await keyring.prepare()
    kid = await active(database)
    await keyring.get_private(kid)
    await keyring.forget([kid, "never-there"])
    with pytest.raises(ConfigError):
        await keyring.get_private(kid)


async def test_no_key_id_reads_as_an_option(
    keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `kid` that begins with a hyphen could not be given to `moorage key revoke`."""
    seeds = (number.to_bytes(32, "big") for number in itertools.count())
    keys = [Ed25519PrivateKey.from_private_bytes(next(seeds)) for _ in range(1000)]
    hyphens = [key for key in keys if jwk_of(key.public_key())["kid"].startswith("-")]
    other = next(key for key in keys if key not in hyphens)
    made = iter([hyphens[0], hyphens[1], other])
    monkeypatch.setattr(Ed25519PrivateKey, "generate", lambda: next(made))
    assert await keyring.add_key() == jwk_of(other.public_key())["kid"]


async def test_a_failed_start_can_be_repeated(keyring: Keyring, database: Database) -> None:
    await database.write(lambda tx: _rename(tx, "signing_keys", "away"), actor="")
    with pytest.raises(DatabaseUnavailableError):
        await keyring.prepare()
    await database.write(lambda tx: _rename(tx, "away", "signing_keys"), actor="")
    await keyring.prepare()
    private = await keyring.get_private(await active(database))
    assert isinstance(private, Ed25519PrivateKey)


def _rename(tx: Transaction, old: str, new: str) -> None:
    tx.execute(sa.text(f"ALTER TABLE {old} RENAME TO {new}"))
