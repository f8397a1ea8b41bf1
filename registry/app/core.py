"""The parts that all capabilities share: settings, database, stores and access policy."""

from msgspec import Struct

from registry.app.stores import open_stores
from registry.auth.policy.policy_cache import PolicyCache
from registry.config import Settings
from registry.metadata.engine.database import Database
from registry.metadata.revisions.watch import RevisionWatch
from storage.driver import Driver
from storage.stores import Stores


class Core(Struct, frozen=True):
    """The parts that all capabilities share."""

    settings: Settings
    database: Database
    stores: Stores
    watch: RevisionWatch
    policies: PolicyCache


def open_core(settings: Settings, driver: Driver | None = None) -> Core:
    """Create the database and the stores. `driver` is as in `compose`."""
    database = Database(settings.database_url, settings.database)
    stores = open_stores(settings, driver)
    watch = RevisionWatch(database)
    policies = PolicyCache(database, watch, personal_namespaces=settings.auth.personal_namespaces)
    return Core(settings, database, stores, watch, policies)
