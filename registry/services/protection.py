"""Which tags no rule of retention may take, and why. Asked by a plan, and again in the transaction
in which a tag goes. Beside what nobody may take, it is what belongs to something that is here.
"""

import re
from collections.abc import Collection

from registry.metadata import manifests
from registry.metadata.repositories import RepositoryRow
from registry.metadata.transaction import Transaction
from registry.services import removal

# Tags that stand for what refers to a manifest: the referrers' fallback, and `sha256-….sig` of
# cosign. They have the first 64 digits of its digest.
_ATTACHED = re.compile(r"(sha256|sha512)-([0-9a-f]{64})(\..+)?")


def find_protected_tags(
    tx: Transaction, repository: RepositoryRow, tags: Collection[str]
) -> dict[str, str]:
    """Those of the tags that stay, each with the reason."""
    begins = {tag: f"{match[1]}:{match[2]}" for tag in tags if (match := _ATTACHED.fullmatch(tag))}
    here = manifests.list_beginning(tx, repository, set(begins.values()))
    attached = {
        tag: f"it belongs to {here[begin]}, which is here"
        for tag, begin in begins.items()
        if begin in here
    }
    return attached | removal.find_protected_tags(tx, repository, tags)
