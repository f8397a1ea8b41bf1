"""Which tags no rule of retention may take, and why. Asked by a plan, and again in the transaction
in which a tag goes. Beside what nobody may take, it is what belongs to something that is here.
"""

import re
from collections.abc import Collection

from registry.metadata import manifests
from registry.metadata.repositories import RepositoryRow
from registry.metadata.retention import TagUse
from registry.metadata.transaction import Transaction
from registry.services import removal

# Tags of what refers to a manifest, named after the first 64 digits of its digest: the referrers'
# fallback tag, and with a suffix those of cosign (`sha256-….sig`).
_ATTACHED = re.compile(r"(sha256|sha512)-([0-9a-f]{64})(\..+)?")


def find_protected_tags(
    tx: Transaction, repository: RepositoryRow, uses: Collection[TagUse]
) -> dict[str, str]:
    """Those of the tags that stay, each with the reason."""
    attached = _find_attached(tx, repository, uses)
    return attached | removal.find_protected_tags(tx, repository, [use.name for use in uses])


def _find_attached(
    tx: Transaction, repository: RepositoryRow, uses: Collection[TagUse]
) -> dict[str, str]:
    """Tags of what refers to a manifest that is here.

    The form of the name alone says nothing: `cosign copy` and oc-mirror tag every digest that they
    copy in that form. A fallback tag is one where its index lists a manifest whose own subject is
    the manifest. Nothing in a signature of cosign says what it signs, so its tag is believed,
    unless it is a tag of that very manifest.
    """
    matches = [(use, match) for use in uses if (match := _ATTACHED.fullmatch(use.name))]
    begins = {use.name: f"{match[1]}:{match[2]}" for use, match in matches}
    here = manifests.list_beginning(tx, repository, set(begins.values()))
    named = [(use, here[begins[use.name]]) for use, _ in matches if begins[use.name] in here]
    listing = manifests.list_with_referrers(
        tx, repository, [(use.digest, subject) for use, subject in named if "." not in use.name]
    )
    return {
        use.name: f"it belongs to {subject}, which is here"
        for use, subject in named
        if (use.digest, subject) in listing or ("." in use.name and use.digest != subject)
    }
