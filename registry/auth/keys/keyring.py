"""The keys of the registry: one that hashes secrets, and those that sign tokens."""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from registry.auth.credentials.secrets import Hasher
from registry.auth.keys.key_store import KeyStore
from registry.errors import ConfigError
from registry.metadata.access import signing_keys
from registry.metadata.access.signing_keys import KeyState
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_PEPPER = "secrets"
_BYTES = 32


class Keyring:
    """The keys of the registry. Private keys come from the key store and are cached.

    Public keys are rows of the policy.
    """

    def __init__(self, database: Database, key_store: KeyStore) -> None:
        self._db = database
        self._key_store = key_store
        self._hasher: Hasher | None = None
        self._private: dict[str, Ed25519PrivateKey] = {}
        self._lock = asyncio.Lock()

    async def prepare(self) -> None:
        """Create the keys that do not exist yet; raise ConfigError if keys cannot be stored."""
        await self.get_hasher()
        keys = await self._db.read(signing_keys.list_all)
        if not any(key.state is KeyState.ACTIVE for key in keys):
            await self.add_key(only_first=True)

    async def get_hasher(self) -> Hasher:
        """Return the hasher of secrets; raise ConfigError."""
        if self._hasher is None:
            async with self._lock:
                key = await self._key_store.find(_PEPPER)
                if key is None:
                    key = await self._key_store.add(_PEPPER, os.urandom(_BYTES))
                self._hasher = Hasher(key)
        return self._hasher

    async def add_key(
        self,
        record: Callable[[Transaction, str], None] = lambda _tx, _kid: None,
        *,
        only_first: bool = False,
    ) -> str:
        """Create a key, use it to sign from now on, and return its ID.

        `only_first` does so only if there is no active key. `record` writes to the audit log, in
        the transaction that adds the key.
        """
        private, jwk = _generate()
        # Store the private key first: once the public key is visible, the private key may be
        # needed.
        await self._key_store.add(jwk["kid"], private.private_bytes_raw())

        def work(tx: Transaction) -> bool:
            tx.lock_name("signing key")  # else two concurrent calls leave two active keys
            if only_first and any(k.state is KeyState.ACTIVE for k in signing_keys.list_all(tx)):
                return False
            signing_keys.insert(tx, jwk["kid"], json.dumps(jwk))
            record(tx, jwk["kid"])
            return True

        if not await self._db.write(work, actor=""):
            await self._key_store.remove(jwk["kid"])
        return jwk["kid"]

    async def get_private(self, kid: str) -> "Ed25519PrivateKey":
        """Return a private key; raise ConfigError if the key store does not have it."""
        # Loaded by the first token, because a registry without users has none.
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
            Ed25519PrivateKey,
        )

        found = self._private.get(kid)
        if found is None:
            raw = await self._key_store.find(kid)
            if raw is None:
                raise ConfigError(
                    f"the private key of the signing key {kid} is not on this machine: replicas "
                    'share keys with auth.key_store = "database"'
                )
            found = self._private[kid] = Ed25519PrivateKey.from_private_bytes(raw)
        return found

    async def list_private(self) -> dict[str, bytes]:
        """Return all keys of this registry in the key store, by name; raise ConfigError."""
        known = [key.kid for key in await self._db.read(signing_keys.list_all)]
        found = {name: await self._key_store.find(name) for name in [_PEPPER, *known]}
        return {name: value for name, value in found.items() if value is not None}

    async def adopt(self, private: Mapping[str, bytes]) -> None:
        """Store keys that `list_private` returned elsewhere.

        Raises ConfigError if the key store has a different key of the same name.
        """
        for name, value in private.items():
            if await self._key_store.add(name, value) != value:
                raise ConfigError(
                    f"there is already a different key named {name}: it belongs to another "
                    "registry, so move it away"
                )

    async def forget(self, kids: list[str]) -> None:
        """Delete the private keys of signing keys that no longer exist."""
        for kid in kids:
            self._private.pop(kid, None)
            await self._key_store.remove(kid)


def _generate() -> tuple["Ed25519PrivateKey", dict[str, str]]:
    """Return a new private key and its JWK."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - as above
        Ed25519PrivateKey,
    )

    from registry.auth.keys.jose import jwk_of  # noqa: PLC0415 - as above

    while True:
        private = Ed25519PrivateKey.generate()
        jwk = jwk_of(private.public_key())
        if not jwk["kid"].startswith("-"):  # `moorage key revoke` would take it for an option
            return private, jwk
