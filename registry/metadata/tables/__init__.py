"""Table definitions. `docs/reference/data-model.md` describes them; `migrations/` creates them.

Times are microseconds since the epoch, in UTC. Names and tags compare by bytes on every database.
Partial indexes have the same condition on both databases. The tables name only that of SQLite,
because `postgresql_where` imports the dialect of PostgreSQL.
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
from registry.metadata.tables.content import blobs, repositories, repository_blobs
from registry.metadata.tables.events import audit_log, change_feed, change_feed_revision
from registry.metadata.tables.gc import (
    gc_queue,
    gc_state,
    pending_deletions,
    unreadable_manifests,
)
from registry.metadata.tables.images import (
    manifest_bytes,
    manifest_edges,
    manifests,
    pull_times,
    tags,
)
from registry.metadata.tables.maintenance import (
    leases,
    schema_version,
    scrub_state,
    write_freeze,
)
from registry.metadata.tables.mirrors import mirror_tag_history, mirror_tags, mirror_usage, mirrors
from registry.metadata.tables.policy import (
    grants,
    policy_changes,
    policy_revision,
    private_keys,
    removed_repositories,
    signing_keys,
)
from registry.metadata.tables.protection import holds, immutable_tags, removed_manifests
from registry.metadata.tables.quota_usage import (
    quotas,
    usage_counter_blobs,
    usage_counter_repositories,
    usage_counter_shards,
    usage_counters,
)
from registry.metadata.tables.retention import retention_rules, retention_run
from registry.metadata.tables.syncs import sync_runs, sync_schedules, synced_tags
from registry.metadata.tables.upload_sessions import uploads

__all__ = [
    "ID",
    "TEXT",
    "DigestText",
    "NameText",
    "audit_log",
    "blobs",
    "change_feed",
    "change_feed_revision",
    "gc_queue",
    "gc_state",
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
    "mirror_tag_history",
    "mirror_tags",
    "mirror_usage",
    "mirrors",
    "pending_deletions",
    "policy_changes",
    "policy_revision",
    "private_keys",
    "pull_times",
    "quotas",
    "refresh_tokens",
    "removed_manifests",
    "removed_repositories",
    "repositories",
    "repository_blobs",
    "retention_rules",
    "retention_run",
    "robots",
    "schema_version",
    "scrub_state",
    "secrets",
    "sign_in_failures",
    "signing_keys",
    "sync_runs",
    "sync_schedules",
    "synced_tags",
    "tags",
    "unreadable_manifests",
    "uploads",
    "usage_counter_blobs",
    "usage_counter_repositories",
    "usage_counter_shards",
    "usage_counters",
    "users",
    "write_freeze",
]
