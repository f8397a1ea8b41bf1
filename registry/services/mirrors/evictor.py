"""Eviction of one image from a mirror: a manifest with everything that only it needs."""

from msgspec import Struct

from registry.metadata.content import blobs, manifests, referrers, repositories, tags
from registry.metadata.content.manifest_edges import list_of as list_edges
from registry.metadata.content.manifests import ManifestRow
from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.transaction import Transaction
from registry.metadata.mirrors import mirror_images, mirror_tag_history
from registry.metadata.mirrors.mirror_images import ImageUse, OwnBlob
from registry.metadata.retention.usage_of_tags import TagUse
from registry.services.content import removal
from registry.services.mirrors.mirror import Mirror
from registry.services.protection.protection import find_kept_tags
from storage.digest import Digest

_PAGE = 1000


class EvictedImage(Struct, frozen=True):
    """An image that was evicted, or would be.

    `bytes` is how much smaller the mirror is without it. `obstacle` says why the image stays; it
    is empty if it does not.
    """

    use: ImageUse
    tags: list[str]
    manifests: list[Digest]
    bytes: int
    obstacle: str = ""


def evict(tx: Transaction, mirror: Mirror, use: ImageUse) -> EvictedImage | None:
    """Delete an image and unlink its blobs, in the transaction that checks what keeps it.

    Returns None if it has changed or was used since `use` was read.
    """
    repository = repositories.find(tx, use.repository, lock=True)
    if repository is None or mirror_images.find_use(tx, repository, use.digest) != use:
        return None
    plan = _Plan(tx, mirror, repository, use)
    image = plan.image
    if image.obstacle:
        return image
    for row in plan.rows:
        removal.delete_manifest(tx, repository, row)
    mirror_images.delete_tags(tx, repository, image.tags)
    # The grace period of the bytes began with the last use, because no response since then has
    # promised that they stay.
    graces = {each.digest: max(use.used_at, each.linked_at) for each in plan.blobs}
    if graces:
        blobs.unlink(tx, repository, graces)
        repositories.remove_if_empty(tx, repository)
    return image


def preview(tx: Transaction, mirror: Mirror, use: ImageUse) -> EvictedImage | None:
    """Return what `evict` would do."""
    repository = repositories.find(tx, use.repository)
    return None if repository is None else _Plan(tx, mirror, repository, use).image


class _Plan:
    """The manifests and blobs to delete with an image.

    `rows` are in an order in which each is needed only by those before it.
    """

    def __init__(
        self, tx: Transaction, mirror: Mirror, repository: RepositoryRow, use: ImageUse
    ) -> None:
        names = tags.list_of(tx, repository, use.digest)
        self.rows = _list_going(tx, repository, use.digest)
        self.blobs: list[OwnBlob] = mirror_images.list_own_blobs(
            tx, repository, self.rows, mirror.pattern
        )
        size = sum(row.size for row in self.rows)
        size += sum(each.size for each in self.blobs if each.is_last)
        self.image = EvictedImage(
            use,
            names,
            [row.digest for row in self.rows],
            size,
            _find_obstacle(tx, mirror, repository, names, self.rows),
        )


def _find_obstacle(
    tx: Transaction,
    mirror: Mirror,
    repository: RepositoryRow,
    names: list[str],
    rows: list[ManifestRow],
) -> str:
    """Return why the image of the first row must stay, or an empty text."""
    digest = rows[0].digest
    if local := mirror_images.list_local_tags(tx, repository, digest):
        return f"the tag {local[0]} was set in this registry"
    if held := removal.find_protected_manifests(tx, repository, [digest]):
        return held[digest]
    uses = [TagUse(name, digest, 0, None) for name in names]
    for name, reason in find_kept_tags(tx, repository, uses).items():
        return f"the tag {name} stays: {reason}"
    if mirror.options.cooldown_s and (
        outdated := mirror_tag_history.list_outdated(tx, repository, names, digest)
    ):
        return f"the tag {outdated[0]} answers with it while a newer digest is held back"
    if mirror_images.is_filling(tx, repository, rows):
        return "a part of it is being fetched"
    return ""


def _list_going(tx: Transaction, repository: RepositoryRow, digest: Digest) -> list[ManifestRow]:
    """Return the manifest, and its children and referrers that nothing else needs."""
    going: dict[Digest, ManifestRow] = {}
    waiting = [digest]
    while waiting:
        each = waiting.pop()
        row = manifests.find(tx, repository.name, each)
        if row is None or each in going:
            continue
        if each != digest and _is_needed(tx, repository, row, going):
            continue  # if what needs it is deleted later, it is looked at again
        going[each] = row
        waiting += [edge.digest for edge in list_edges(tx, row.id) if edge.child]
        waiting += [each.digest for each in _list_referrers(tx, repository, each)]
    return list(going.values())


def _list_referrers(
    tx: Transaction, repository: RepositoryRow, digest: Digest
) -> list[ManifestRow]:
    found: list[ManifestRow] = []
    more = True
    while more:
        last = str(found[-1].digest) if found else ""
        some = referrers.list_page(tx, repository, digest, artifact_type=None, last=last, n=_PAGE)
        found += some
        more = len(some) == _PAGE
    return found


def _is_needed(
    tx: Transaction, repository: RepositoryRow, row: ManifestRow, going: dict[Digest, ManifestRow]
) -> bool:
    """Return whether anything but the manifests of `going` needs a manifest."""
    subject = manifests.find_subject(tx, row)
    return bool(
        tags.list_of(tx, repository, row.digest)
        or any(
            parent.digest not in going
            for parent in manifests.list_parents(tx, repository, row.digest)
        )
        or removal.find_protected_manifests(tx, repository, [row.digest])
        or (
            subject is not None
            and subject not in going
            and manifests.list_present(tx, repository, [subject])
        )
    )
