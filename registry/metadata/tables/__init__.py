"""Table definitions. `docs/data-model.md` describes them; `migrations/` creates them.

Times are microseconds since the epoch, in UTC. Names and tags compare by bytes on every database.
"""

from registry.metadata.tables.accounts import (
    group_members,
    groups,
    refresh_tokens,
    robots,
    secrets,
    sign_in_failures,
    users,
)
from registry.metadata.tables.base import ID, TEXT, DigestText, NameText, metadata
from registry.metadata.tables.changes import audit, feed, feed_head
from registry.metadata.tables.collection import candidates, collector, doomed, unreadable
from registry.metadata.tables.content import blobs, repositories, repository_blobs
from registry.metadata.tables.images import manifest_bytes, manifest_edges, manifests, pulls, tags
from registry.metadata.tables.jobs import leases, moves, schema, scrub
from registry.metadata.tables.keeping import (
    holds,
    immutable_tags,
    removed_manifests,
    retention_rules,
    retention_run,
)
from registry.metadata.tables.limits import (
    quotas,
    tallies,
    tally_blobs,
    tally_repositories,
    tally_shards,
)
from registry.metadata.tables.rights import (
    grants,
    policy_changes,
    policy_head,
    removed_repositories,
    signing_keys,
    vault,
)
from registry.metadata.tables.sessions import uploads

__all__ = [
    "ID",
    "TEXT",
    "DigestText",
    "NameText",
    "audit",
    "blobs",
    "candidates",
    "collector",
    "doomed",
    "feed",
    "feed_head",
    "grants",
    "group_members",
    "groups",
    "holds",
    "immutable_tags",
    "leases",
    "manifest_bytes",
    "manifest_edges",
    "manifests",
    "metadata",
    "moves",
    "policy_changes",
    "policy_head",
    "pulls",
    "quotas",
    "refresh_tokens",
    "removed_manifests",
    "removed_repositories",
    "repositories",
    "repository_blobs",
    "retention_rules",
    "retention_run",
    "robots",
    "schema",
    "scrub",
    "secrets",
    "sign_in_failures",
    "signing_keys",
    "tags",
    "tallies",
    "tally_blobs",
    "tally_repositories",
    "tally_shards",
    "unreadable",
    "uploads",
    "users",
    "vault",
]
