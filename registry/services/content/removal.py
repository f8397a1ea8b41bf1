"""Removal of tags, manifests and repositories.

Immutable tags and holds are enforced here, in the transaction that makes the change.
"""

from collections.abc import Collection, Mapping
from itertools import islice

from registry.auth.audit_log import Actor, Event, record
from registry.errors import MOST_LISTED, ManifestInUseError, ProtectedError
from registry.metadata.content import manifest_edges, manifests, repositories, tags
from registry.metadata.content.manifests import ManifestRow
from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.transaction import Transaction
from registry.metadata.protection import holds, immutable_tags
from registry.oci.names import list_patterns
from registry.oci.references import Tag
from registry.oci.referrers import fallback_tag
from registry.oci.tag_patterns import TagPattern
from storage.digest import Digest

_PAGE = 1000


def find_immutable_tags(
    tx: Transaction, repository: RepositoryRow, names: Collection[str]
) -> dict[str, str]:
    """Return the immutable tags among `names`, each with the reason.

    The result is stable until the end of the transaction only if `immutable_tags.lock` is held.
    """
    rules = [
        (TagPattern(row.tags), f"tags {row.tags} are immutable in {row.pattern}")
        for row in immutable_tags.list_of(tx, list_patterns(str(repository.name)))
    ]
    found: dict[str, str] = {}
    for pattern, reason in reversed(rules):  # so that the oldest matching rule is reported
        found |= {name: reason for name in names if pattern.matches(name)}
    return found


def find_protected_manifests(
    tx: Transaction, repository: RepositoryRow, digests: Collection[Digest]
) -> dict[Digest, str]:
    """Return the manifests with a hold, each with the reason."""
    rows = holds.list_of(tx, repository.id, digests)
    return {row.digest: f"hold {row.id}: {row.reason}" for row in reversed(rows)}


def set_tags(
    tx: Transaction,
    repository: RepositoryRow,
    names: Collection[Tag],
    digest: Digest,
    override: Actor | None = None,
) -> None:
    """Point all of the tags at a manifest of the repository.

    Raises ProtectedError if an immutable tag would move, unless `override` names the actor who
    overrides the rules.
    """
    before = {str(tag): tags.put(tx, repository, tag, digest) for tag in sorted(set(names))}
    moved = [tag for tag, old in before.items() if old not in {None, digest}]
    _require_movable(tx, repository, moved, override)


def delete_tag(
    tx: Transaction, repository: RepositoryRow, tag: Tag, override: Actor | None = None
) -> bool:
    """Delete the tag only. Return whether it existed. Raises ProtectedError as `set_tags`."""
    if not tags.delete(tx, repository, tag):
        return False
    _require_movable(tx, repository, [str(tag)], override)
    return True


def delete_manifest(
    tx: Transaction, repository: RepositoryRow, row: ManifestRow, override: Actor | None = None
) -> None:
    """Delete a manifest with all its tags, and the repository if it becomes empty.

    The caller must hold the lock of the repository. Raises ManifestInUseError while a retained
    index refers to the manifest, and ProtectedError while it has a hold or as `set_tags`.
    """
    _free_from_indexes(tx, repository, row)
    _refuse(find_protected_manifests(tx, repository, [row.digest]))
    _require_movable(tx, repository, tags.list_of(tx, repository, row.digest), override)
    tags.delete_all_of(tx, repository, row.digest)
    manifests.delete(tx, repository, row)
    repositories.remove_if_empty(tx, repository)


def delete_repository(
    tx: Transaction, repository: RepositoryRow, override: Actor | None = None
) -> None:
    """Delete a repository with all its content.

    The caller must hold the lock of the repository. Raises ProtectedError while a manifest has a
    hold, or as `set_tags`.
    """
    held = holds.find_any(tx, repository.id)
    if held is not None:
        _refuse({held.digest: f"hold {held.id}: {held.reason}"})
    last, more = "", True
    while more:
        names = tags.list_names(tx, repository, _PAGE, last)
        _require_movable(tx, repository, names, override)
        more, last = len(names) == _PAGE, names[-1] if names else last
    repositories.delete(tx, repository)


def _require_movable(
    tx: Transaction, repository: RepositoryRow, names: Collection[str], override: Actor | None
) -> None:
    if not names:
        return
    immutable_tags.lock(tx, shared=True)
    protected = find_immutable_tags(tx, repository, names)
    if override is None:
        _refuse(protected)
    else:
        for name, reason in protected.items():
            target = f"{repository.name}:{name}"
            record(tx, override, Event.IMMUTABLE_OVERRIDE, target, reason=reason)


def _refuse(protected: Mapping[str, str] | Mapping[Digest, str]) -> None:
    """Raise ProtectedError if anything is protected.

    The message contains the first item. The details list up to `MOST_LISTED` items.
    """
    listed = {str(each): why for each, why in islice(protected.items(), MOST_LISTED)}
    for what, reason in listed.items():
        raise ProtectedError(
            f"{what} is protected: {reason}", {"protected": listed, "count": len(protected)}
        )


def _free_from_indexes(tx: Transaction, repository: RepositoryRow, row: ManifestRow) -> None:
    """Raise ManifestInUseError while an index needs the manifest. Detach other indexes.

    An index that only lists the manifest as a referrer does not need it. Such an index has exactly
    one tag, the fallback tag of the manifest's own subject. The form of a tag is not sufficient:
    `cosign copy` and oc-mirror tag every digest that they copy in that form.
    """
    subject = manifests.find_subject(tx, row)
    listing = [str(fallback_tag(subject))] if subject is not None else None
    while parents := manifests.list_parents(tx, repository, row.digest):
        held = find_protected_manifests(tx, repository, [parent.digest for parent in parents])
        holders = [
            parent
            for parent in parents
            if parent.digest in held or tags.list_of(tx, repository, parent.digest) != listing
        ]
        if holders:
            raise ManifestInUseError(
                "an index in the repository refers to this manifest; delete the index first",
                {"indexes": [str(holder.digest) for holder in holders[:MOST_LISTED]]},
            )
        for parent in parents:
            manifest_edges.detach_child(tx, repository, parent.id, row.digest)
