"""The registry as its front ends see it: one object a noun."""

from dataclasses import dataclass

from registry.services.blobs import Blobs
from registry.services.doomed import Doomed
from registry.services.health import Health
from registry.services.manifests import Manifests
from registry.services.moving import Moving
from registry.services.quotas import Quotas
from registry.services.referrers import Referrers
from registry.services.repositories import Repositories
from registry.services.tags import Tags
from registry.services.uploads import Uploads
from registry.services.usage import Usage


@dataclass(frozen=True, slots=True)
class Registry:
    """All use cases over one database and its stores."""

    repositories: Repositories
    blobs: Blobs
    uploads: Uploads
    manifests: Manifests
    tags: Tags
    referrers: Referrers
    doomed: Doomed
    moving: Moving
    quotas: Quotas
    usage: Usage
    health: Health
