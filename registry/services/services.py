"""Services of the registry as the front ends see them, one object per noun."""

from msgspec import Struct

from registry.services.content.blob_writer import BlobWriter
from registry.services.content.blobs import Blobs
from registry.services.content.history import History
from registry.services.content.images import Images
from registry.services.content.manifests import Manifests
from registry.services.content.pulls import Pulls
from registry.services.content.referrers import Referrers
from registry.services.content.repositories import Repositories
from registry.services.content.tags import Tags
from registry.services.content.upload_sessions import UploadSessions
from registry.services.content.usage import Usage
from registry.services.gc.collector import Collector
from registry.services.gc.deletions import DeletionQueue
from registry.services.gc.explain import Explainer
from registry.services.maintenance.disk_reserve import DiskReserve
from registry.services.maintenance.fsck import Fsck
from registry.services.maintenance.healer import Healer
from registry.services.maintenance.health import Health
from registry.services.maintenance.scrub import Scrub
from registry.services.maintenance.store_migration import StoreMigration
from registry.services.mirrors.blobs import MirroredBlobs
from registry.services.mirrors.cooldown import Cooldowns
from registry.services.mirrors.eviction import Eviction
from registry.services.mirrors.fills import Fills
from registry.services.mirrors.lists.lists import MirroredLists
from registry.services.mirrors.lookup import MirrorLookup
from registry.services.mirrors.manifests import MirroredManifests
from registry.services.mirrors.mirrors import Mirrors
from registry.services.mirrors.upstreams import Upstreams
from registry.services.protection.holds import Holds
from registry.services.protection.immutable_tags import ImmutableTags
from registry.services.quotas.quotas import Quotas
from registry.services.retention.retention import Retention
from registry.services.retention.rules import RetentionRules
from registry.services.retention.runs import RetentionRuns
from registry.services.syncs.syncs import Syncs
from registry.services.syncs.worker import SyncWorker


class Services(Struct, frozen=True):
    """All services over one database and its stores."""

    repositories: Repositories
    blobs: Blobs
    uploads: UploadSessions
    blob_writer: BlobWriter
    manifests: Manifests
    tags: Tags
    images: Images
    history: History
    immutable_tags: ImmutableTags
    holds: Holds
    referrers: Referrers
    collector: Collector
    explainer: Explainer
    pulls: Pulls
    retention_rules: RetentionRules
    retention: Retention
    retention_runs: RetentionRuns
    deletions: DeletionQueue
    disk_reserve: DiskReserve
    store_migration: StoreMigration
    scrub: Scrub
    healer: Healer
    fsck: Fsck
    quotas: Quotas
    fills: Fills
    usage: Usage
    health: Health
    mirrors: Mirrors
    mirror_lookup: MirrorLookup
    mirrored_manifests: MirroredManifests
    mirrored_blobs: MirroredBlobs
    mirrored_lists: MirroredLists
    upstreams: Upstreams
    eviction: Eviction
    syncs: Syncs
    sync_worker: SyncWorker
    cooldowns: Cooldowns
