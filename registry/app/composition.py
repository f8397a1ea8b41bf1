"""Composition of a registry from the settings."""

from registry.app.access import compose_access
from registry.app.content import compose_content
from registry.app.core import open_core
from registry.app.gc import compose_gc
from registry.app.keys import open_key_store
from registry.app.maintenance import compose_maintenance
from registry.app.mirrors import compose_mirrors
from registry.app.quotas import compose_quotas
from registry.app.retention import compose_retention
from registry.app.runtime import Runtime
from registry.auth.keys.keyring import Keyring
from registry.config import Settings
from registry.jobs.runner import Runner
from registry.jobs.schedule import list_jobs
from registry.services.maintenance.leases import Leases
from registry.services.services import Services
from storage.driver import Driver


def compose(settings: Settings, driver: Driver | None = None) -> Runtime:
    """Create the database, the stores and the services of a registry.

    New blobs are written to `driver` if it is given, otherwise to the store in the settings.
    """
    core = open_core(settings, driver)
    quotas = compose_quotas(core)
    content = compose_content(core, quotas["quotas"])
    registry = Services(
        **content,
        **quotas,
        **compose_gc(core),
        **compose_retention(core, content["history"]),
        **compose_maintenance(core, content),
        **compose_mirrors(core, content, quotas["quotas"]),
    )
    keyring = Keyring(core.database, open_key_store(settings, core.database))
    access = compose_access(core, keyring, quotas["quotas"])
    leases = Leases(core.database)
    return Runtime(core.database, core.watch, core.stores, registry, access, keyring, leases)


def compose_runner(settings: Settings, opened: Runtime) -> Runner:
    """Return the runner of the background jobs, not yet started."""
    jobs = list_jobs(
        opened.registry,
        opened.access,
        upload_expiry=settings.storage.upload_expiry,
        audit_keep=settings.auth.audit_retention,
        gc_interval=settings.gc.interval,
    )
    return Runner(opened.leases, jobs)
