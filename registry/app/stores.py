"""The stores of blobs."""

from dataclasses import fields

from registry.config import Settings
from registry.config.tree import StoreSettings
from storage.driver import Driver
from storage.factory import create_driver
from storage.s3.settings import S3Settings
from storage.stores import Stores


async def look_at_stores(settings: Settings) -> None:
    """Raise the error that would keep a server from opening its stores. Creates no store."""
    stores = open_stores(settings)
    try:
        await stores.probe()
    finally:
        await stores.close()


def open_stores(settings: Settings, driver: Driver | None = None) -> Stores:
    """Open the stores in the settings, or `driver` in place of the store for new blobs."""
    return Stores(
        driver or _open_store(settings, settings.storage),
        _open_store(settings, settings.old_storage) if settings.old_storage.driver else None,
    )


def _open_store(settings: Settings, store: StoreSettings) -> Driver:
    return create_driver(
        store.driver,
        root=settings.find_root(store),
        reserve=store.min_free_space,
        bucket=S3Settings(**{each.name: getattr(store, each.name) for each in fields(S3Settings)}),
        name=store.store_name,
    )
