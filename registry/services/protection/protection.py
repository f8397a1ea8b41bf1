"""Protection of tags from retention rules, with reasons.

Called when a plan is made, and again in the transaction that deletes a tag. In addition to tags
that nobody may delete, tags of referrers are protected while their subject exists.
"""

import re
from collections.abc import Collection

from registry.metadata.content import referrers
from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.transaction import Transaction
from registry.metadata.retention.usage_of_tags import TagUse
from registry.services.content import removal

# Tags of referrers, named after the first 64 hex digits of the subject's digest: the referrers
# fallback tag, and with a suffix the tags of cosign (`sha256-….sig`).
_ATTACHED = re.compile(r"(sha256|sha512)-([0-9a-f]{64})(\..+)?")


def has_attached_name(tag: str) -> bool:
    """Return whether the tag has the form of the tags of referrers."""
    return _ATTACHED.fullmatch(tag) is not None


def find_kept_tags(
    tx: Transaction, repository: RepositoryRow, uses: Collection[TagUse]
) -> dict[str, str]:
    """Return the tags that retention must keep, each with the reason."""
    attached = _find_attached(tx, repository, uses)
    return attached | removal.find_immutable_tags(tx, repository, [use.name for use in uses])


def _find_attached(
    tx: Transaction, repository: RepositoryRow, uses: Collection[TagUse]
) -> dict[str, str]:
    """Return the tags of referrers whose subject exists in the repository.

    The form of the name is not sufficient: `cosign copy` and oc-mirror tag every digest that they
    copy in that form. A tag counts as a fallback tag if its index lists a manifest whose own
    subject is the named manifest. A cosign signature does not name its subject, so a tag with a
    suffix is accepted as is, unless it points to the named manifest itself.
    """
    matches = [(use, match) for use in uses if (match := _ATTACHED.fullmatch(use.name))]
    begins = {use.name: f"{match[1]}:{match[2]}" for use, match in matches}
    here = referrers.list_by_digest_prefix(tx, repository, set(begins.values()))
    named = [(use, here[begins[use.name]]) for use, _ in matches if begins[use.name] in here]
    listing = referrers.list_with_referrers(
        tx, repository, [(use.digest, subject) for use, subject in named if "." not in use.name]
    )
    return {
        use.name: f"it belongs to {subject}, which is in the repository"
        for use, subject in named
        if (use.digest, subject) in listing or ("." in use.name and use.digest != subject)
    }
