"""Mirrors of other registries."""

from typing import TypedDict

from registry.app.content import ContentServices
from registry.app.core import Core
from registry.services.content.publication import Publication
from registry.services.content.upload_keys import UploadKeys
from registry.services.maintenance.leases import Leases
from registry.services.mirrors.blob_receiver import BlobReceiver
from registry.services.mirrors.blobs import MirroredBlobs
from registry.services.mirrors.cooldown import Cooldowns
from registry.services.mirrors.eviction import Eviction
from registry.services.mirrors.fills import Fills
from registry.services.mirrors.lists.lists import MirroredLists
from registry.services.mirrors.lookup import MirrorLookup
from registry.services.mirrors.manifests import MirroredManifests
from registry.services.mirrors.mirrors import Mirrors
from registry.services.mirrors.spool import Spool
from registry.services.mirrors.upstreams import Upstreams
from registry.services.quotas.quotas import Quotas
from registry.services.syncs.pull import PullServices
from registry.services.syncs.syncs import Syncs
from registry.services.syncs.worker import SyncWorker


class MirrorServices(TypedDict):
    """The services of mirrors, as fields of `Services`."""

    mirrors: Mirrors
    mirror_lookup: MirrorLookup
    mirrored_manifests: MirroredManifests
    mirrored_blobs: MirroredBlobs
    mirrored_lists: MirroredLists
    fills: Fills
    upstreams: Upstreams
    eviction: Eviction
    syncs: Syncs
    sync_worker: SyncWorker
    cooldowns: Cooldowns


def compose_mirrors(core: Core, content: ContentServices, quotas: Quotas) -> MirrorServices:
    """Compose the services of mirrors."""
    settings, database, blobs = core.settings, core.database, content["blobs"]
    publication = Publication(database, blobs, UploadKeys(database, core.stores))
    receiver = BlobReceiver(core.stores, content["uploads"], publication, quotas)
    spool = Spool(settings.data, settings.mirrors.spool_size)
    fills = Fills(database, blobs, receiver, spool, most=settings.mirrors.max_fills)
    upstreams = Upstreams(settings.data)
    cooldowns = Cooldowns(database)
    mirrors, read_only = Mirrors(database), settings.content.read_only
    mirrored_manifests = MirroredManifests(
        database, content["manifests"], upstreams, Leases(database), cooldowns
    )
    mirrored_blobs = MirroredBlobs(database, content["manifests"], fills, upstreams)
    pulling = PullServices(
        database, content["manifests"], cooldowns, mirrored_manifests, mirrored_blobs, upstreams
    )
    return MirrorServices(
        mirrors=mirrors,
        mirror_lookup=MirrorLookup(database, core.watch),
        mirrored_manifests=mirrored_manifests,
        mirrored_blobs=mirrored_blobs,
        mirrored_lists=MirroredLists(content["tags"], content["referrers"], upstreams),
        fills=fills,
        upstreams=upstreams,
        cooldowns=cooldowns,
        eviction=Eviction(
            database,
            upstreams,
            content["pulls"],
            grace=settings.gc.grace_period,
            read_only=settings.content.read_only,
        ),
        syncs=Syncs(database, read_only=read_only),
        sync_worker=SyncWorker(pulling, mirrors, Leases(database), read_only=read_only),
    )
