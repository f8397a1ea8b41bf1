"""Services of the registry as the front ends see them, one object per noun."""

from dataclasses import dataclass

from registry.services.blobs import Blobs
from registry.services.collector import Collector
from registry.services.doomed import Doomed
from registry.services.fsck import Fsck
from registry.services.healing import Healing
from registry.services.health import Health
from registry.services.history import History
from registry.services.holds import Holds
from registry.services.images import Images
from registry.services.immutable_tags import ImmutableTags
from registry.services.manifests import Manifests
from registry.services.moving import Moving
from registry.services.pulls import Pulls
from registry.services.quotas import Quotas
from registry.services.referrers import Referrers
from registry.services.repositories import Repositories
from registry.services.retention import Retention
from registry.services.retention_rules import RetentionRules
from registry.services.retention_runs import RetentionRuns
from registry.services.scrub import Scrub
from registry.services.spare_room import SpareRoom
from registry.services.tags import Tags
from registry.services.uploads import Uploads
from registry.services.usage import Usage
from registry.services.why import Why


@dataclass(frozen=True, slots=True)
class Registry:
    """All services over one database and its stores."""

    repositories: Repositories
    blobs: Blobs
    uploads: Uploads
    manifests: Manifests
    tags: Tags
    images: Images
    history: History
    immutable_tags: ImmutableTags
    holds: Holds
    referrers: Referrers
    collector: Collector
    why: Why
    pulls: Pulls
    retention_rules: RetentionRules
    retention: Retention
    retention_runs: RetentionRuns
    doomed: Doomed
    spare_room: SpareRoom
    moving: Moving
    scrub: Scrub
    healing: Healing
    fsck: Fsck
    quotas: Quotas
    usage: Usage
    health: Health
