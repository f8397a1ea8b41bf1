"""Garbage collection."""

from typing import TypedDict

from registry.app.core import Core
from registry.services.gc.collector import Collector
from registry.services.gc.deletions import DeletionQueue
from registry.services.gc.explain import Why


class GcServices(TypedDict):
    """The services of garbage collection, as fields of `Services`."""

    collector: Collector
    why: Why
    doomed: DeletionQueue


def compose_gc(core: Core) -> GcServices:
    """Compose garbage collection."""
    return GcServices(
        collector=Collector(core.database, core.settings.gc),
        why=Why(core.database, core.stores, core.settings.gc),
        doomed=DeletionQueue(core.database, core.stores),
    )
