"""The store of private keys."""

from registry.app.runtime import Runtime
from registry.auth.keys.key_store import DatabaseKeyStore, FileKeyStore, KeyStore
from registry.config import Settings
from registry.errors import ConfigError
from registry.metadata.engine.database import Database


def open_key_store(settings: Settings, database: Database) -> KeyStore:
    """Return the key store for the private keys."""
    place = settings.auth.key_store
    if place == "file" or (place == "auto" and database.embedded):
        return FileKeyStore(settings.data / "keys")
    return DatabaseKeyStore(database, settings.auth.secret)


async def export_private_keys(
    settings: Settings, opened: Runtime, target: str
) -> dict[str, bytes] | None:
    """Return the rows of private keys for a copy of the registry in the database at `target`.

    Returns None if the rows of this database can be copied as they are. If the keys are files after
    the copy, writes the files and returns no rows. Raises ConfigError if a key cannot be stored.
    """
    here = open_key_store(settings, opened.database)
    place = settings.auth.key_store
    in_files = place == "file" or (place == "auto" and Database.is_embedded(target))
    if isinstance(here, FileKeyStore) == in_files:
        return None
    private = await opened.keyring.list_private()
    if not in_files:
        sealed = DatabaseKeyStore(opened.database, settings.auth.secret)
        return {name: sealed.seal(value) for name, value in private.items()}
    files = FileKeyStore(settings.data / "keys")
    for name, value in private.items():
        if await files.add(name, value) != value:
            raise ConfigError(
                f"{settings.data / 'keys' / name} already holds the key of another registry: "
                "move it away"
            )
    return {}
