"""Deletions of tags that a sync has set and the source has deleted."""

from collections.abc import Collection

from registry.auth.policy.principals import Principal
from registry.errors import ProtectedError
from registry.metadata.content import repositories, tags
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.mirrors import synced_tags
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.services.content import removal
from storage.digest import Digest


async def list_gone(
    database: Database, name: RepositoryName, listed: Collection[str]
) -> list[tuple[Tag, Digest]]:
    """Return the tags that a sync has set, that still point there, and that are not in `listed`."""

    def work(tx: Transaction) -> list[tuple[Tag, Digest]]:
        repository = repositories.find(tx, name)
        if repository is None:
            return []
        set_by_sync = sorted(synced_tags.list_of(tx, name).items())
        gone = [(Tag(tag), digest) for tag, digest in set_by_sync if tag not in listed]
        return [each for each in gone if tags.find(tx, repository, each[0]) == each[1]]

    return await database.read(work)


async def delete(
    database: Database, name: RepositoryName, tag: Tag, digest: Digest, principal: Principal
) -> bool:
    """Delete a tag that points to this digest. Return False if it does not.

    Raises ProtectedError if the tag is immutable, or its image has a hold.
    """

    def work(tx: Transaction) -> bool:
        synced_tags.delete(tx, name, tag)
        repository = repositories.find(tx, name, lock=True)
        if repository is None or tags.find(tx, repository, tag) != digest:
            return False
        held = removal.find_protected_manifests(tx, repository, [digest])
        for reason in held.values():
            raise ProtectedError(f"the image of {name}:{tag} is protected: {reason}")
        return removal.delete_tag(tx, repository, tag)

    return await database.write(work, actor=principal.name, may_use_reserve=True)
