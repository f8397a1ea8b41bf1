"""Repositories and their content."""

from typing import TypedDict

from registry.app.answers import find_answers_room
from registry.app.core import Core
from registry.services.content.blob_writer import BlobWriter
from registry.services.content.blobs import Blobs
from registry.services.content.history import History
from registry.services.content.images import Images
from registry.services.content.manifest_cache import ManifestCache
from registry.services.content.manifests import Manifests
from registry.services.content.publication import Publication
from registry.services.content.pulls import Pulls
from registry.services.content.referrers import Referrers
from registry.services.content.repositories import Repositories
from registry.services.content.tags import Tags
from registry.services.content.upload_keys import UploadKeys
from registry.services.content.upload_sessions import UploadSessions
from registry.services.protection.holds import Holds
from registry.services.protection.immutable_tags import ImmutableTags
from registry.services.quotas.quotas import Quotas


class ContentServices(TypedDict):
    """The services of content, as fields of `Services`."""

    repositories: Repositories
    blobs: Blobs
    uploads: UploadSessions
    blob_writer: BlobWriter
    manifests: Manifests
    tags: Tags
    images: Images
    history: History
    referrers: Referrers
    pulls: Pulls
    immutable_tags: ImmutableTags
    holds: Holds


def compose_content(core: Core, quotas: Quotas) -> ContentServices:
    """Compose the services of content and its protection."""
    settings, database = core.settings, core.database
    read_only = settings.content.read_only
    blobs = Blobs(database, core.stores, settings.gc)
    cache = ManifestCache(settings.limits.manifest_cache_size - find_answers_room(settings))
    keys = UploadKeys(database, core.stores)
    publication = Publication(database, blobs, keys)
    uploads = UploadSessions(
        database,
        core.stores,
        quotas,
        keys,
        publication,
        watch=core.watch,
        most=settings.limits.open_uploads,
    )
    return ContentServices(
        repositories=Repositories(database, read_only=read_only),
        blobs=blobs,
        uploads=uploads,
        blob_writer=BlobWriter(database, uploads, publication, keys),
        manifests=Manifests(database, settings.content, core.watch, cache, settings.gc),
        tags=Tags(database, settings.content),
        images=Images(database, grace=settings.gc.grace_period, read_only=read_only),
        history=History(database, read_only=read_only),
        referrers=Referrers(database, core.watch, cache),
        pulls=Pulls(database, settings.retention.pull_flush_interval),
        immutable_tags=ImmutableTags(database),
        holds=Holds(database),
    )
