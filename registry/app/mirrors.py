"""Mirrors: content of upstream registries."""

from typing import TypedDict

from registry.app.content import ContentServices
from registry.app.core import Core
from registry.services.content.publication import Publication
from registry.services.content.upload_keys import UploadKeys
from registry.services.mirrors.blob_receiver import BlobReceiver
from registry.services.mirrors.fills import Fills
from registry.services.mirrors.spool import Spool
from registry.services.quotas.quotas import Quotas


class MirrorServices(TypedDict):
    """The services of mirrors, as fields of `Services`."""

    fills: Fills


def compose_mirrors(core: Core, content: ContentServices, quotas: Quotas) -> MirrorServices:
    """Compose the services of mirrors."""
    settings, database, blobs = core.settings, core.database, content["blobs"]
    publication = Publication(database, blobs, UploadKeys(database, core.stores))
    receiver = BlobReceiver(core.stores, content["uploads"], publication, quotas)
    spool = Spool(settings.data, settings.mirrors.spool_size)
    return MirrorServices(
        fills=Fills(database, blobs, receiver, spool, most=settings.mirrors.max_fills)
    )
