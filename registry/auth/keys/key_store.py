"""Key stores: files on one machine, or encrypted rows in the database that replicas share.

`auth.key_store` in docs/reference/configuration.md selects one of them.
"""

import asyncio
import base64
import contextlib
import os
import stat
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from registry.errors import ConfigError
from registry.metadata.access import key_store
from registry.metadata.engine.database import Database

if TYPE_CHECKING:
    from cryptography.fernet import Fernet


class KeyStore(Protocol):
    """A key store: small secrets by name. The value of a name never changes."""

    async def find(self, name: str) -> bytes | None:
        """Return the value; raise ConfigError if it cannot be read."""

    async def add(self, name: str, value: bytes) -> bytes:
        """Store `value` durably and return the stored value: the existing one, if there is one."""

    async def remove(self, name: str) -> None:
        """Delete the value."""


def is_private(found: os.stat_result, groups: Collection[int]) -> bool:
    """Return whether the permissions of a file are safe for a secret of a process in `groups`.

    Others must have no access. A group of the process may have access: with `fsGroup`, Kubernetes
    gives each file of a volume to that group, readable and writable, at each mount.
    """
    if found.st_mode & stat.S_IRWXO:
        return False
    return not found.st_mode & stat.S_IRWXG or found.st_gid in groups


class FileKeyStore:
    """A key store with one file per key, of mode 0600, in a directory of mode 0700."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def find(self, name: str) -> bytes | None:
        return await asyncio.to_thread(self._find, name)

    def _find(self, name: str) -> bytes | None:
        path = self._folder / name
        try:
            with path.open("rb") as file:
                if not is_private(os.fstat(file.fileno()), {os.getegid(), *os.getgroups()}):
                    raise ConfigError(f"{path} can be read by other users; run: chmod 600 {path}")
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"cannot read the key {path}: {error.strerror}") from error

    async def add(self, name: str, value: bytes) -> bytes:
        try:
            await asyncio.to_thread(self._write, name, value)
        except OSError as error:
            raise ConfigError(f"cannot write a key to {self._folder}: {error.strerror}") from error
        return await self.find(name) or value

    def _write(self, name: str, value: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self._folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(value)
                file.flush()
                os.fsync(file.fileno())
            # Unlike a rename, a link does not replace a key that another process has just created.
            with contextlib.suppress(FileExistsError):
                os.link(temporary, self._folder / name)
        finally:
            Path(temporary).unlink()
        # Also sync the parent, because the directory may be new: a power failure must not lose a
        # key whose row in the database survives.
        for path in (self._folder, self._folder.parent):
            folder = os.open(path, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    async def remove(self, name: str) -> None:
        await asyncio.to_thread((self._folder / name).unlink, missing_ok=True)


class DatabaseKeyStore:
    """A key store of rows, encrypted with a key derived from a secret in the settings."""

    def __init__(self, database: Database, secret: str) -> None:
        """Accept an empty secret: every use of the key store then raises ConfigError."""
        self._secret = secret
        self._db = database

    def _open(self) -> "Fernet":
        # An embedded database has no keys, so only this method loads the cryptography.
        from cryptography.fernet import Fernet  # noqa: PLC0415
        from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

        if not self._secret:
            raise ConfigError(
                "sign-in needs private keys, which replicas share in the database, encrypted: set "
                "auth.secret to the same 32 or more random characters on every replica "
                '(openssl rand -hex 32), or, for a single machine, set auth.key_store = "file"'
            )
        derived = HKDF(hashes.SHA256(), 32, None, b"moorage keys").derive(self._secret.encode())
        return Fernet(base64.urlsafe_b64encode(derived))

    async def find(self, name: str) -> bytes | None:
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - as in `_open`

        cipher = self._open()
        value = await self._db.read(lambda tx: key_store.find(tx, name))
        if value is None:
            return None
        try:
            return cipher.decrypt(value)
        except InvalidToken as error:
            raise ConfigError(
                "auth.secret does not decrypt the keys in the database: every replica "
                "needs the secret that the keys were created with"
            ) from error

    def seal(self, value: bytes) -> bytes:
        """Return the encrypted value for a row; raise ConfigError without a secret."""
        return self._open().encrypt(value)

    async def add(self, name: str, value: bytes) -> bytes:
        sealed = self.seal(value)
        await self._db.write(lambda tx: key_store.insert(tx, name, sealed), actor="")
        return await self.find(name) or value

    async def remove(self, name: str) -> None:
        await self._db.write(lambda tx: key_store.delete(tx, name), actor="")
