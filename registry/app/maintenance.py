"""Maintenance of the database and the stores."""

from typing import TypedDict

from registry.app.content import ContentServices
from registry.app.core import Core
from registry.app.other_servers import find_upstream
from registry.services.maintenance.disk_reserve import DiskReserve
from registry.services.maintenance.fsck import Fsck
from registry.services.maintenance.healer import Healer
from registry.services.maintenance.health import Health
from registry.services.maintenance.scrub import Scrub
from registry.services.maintenance.store_migration import StoreMigration


class MaintenanceServices(TypedDict):
    """The services of maintenance, as fields of `Services`."""

    disk_reserve: DiskReserve
    store_migration: StoreMigration
    scrub: Scrub
    healer: Healer
    fsck: Fsck
    health: Health


def compose_maintenance(core: Core, content: ContentServices) -> MaintenanceServices:
    """Compose maintenance."""
    settings, database, stores = core.settings, core.database, core.stores
    blobs, writer = content["blobs"], content["blob_writer"]
    scrub = Scrub(database, stores, blobs, settings.scrub)
    return MaintenanceServices(
        disk_reserve=DiskReserve(database),
        store_migration=StoreMigration(database, stores, blobs, writer),
        scrub=scrub,
        healer=Healer(database, scrub, writer, find_upstream(settings)),
        # Bytes that no row refers to yet belong to an upload session, which expires after this.
        fsck=Fsck(database, stores, blobs, settings.storage.upload_expiry),
        health=Health(database, stores, read_only=settings.content.read_only),
    )
