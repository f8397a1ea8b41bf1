"""Garbage collection."""

from typing import TypedDict

from registry.app.core import Core
from registry.services.gc.collector import Collector
from registry.services.gc.deletions import DeletionQueue
from registry.services.gc.explain import Explainer


class GcServices(TypedDict):
    """The services of garbage collection, as fields of `Services`."""

    collector: Collector
    explainer: Explainer
    deletions: DeletionQueue


def compose_gc(core: Core) -> GcServices:
    """Compose garbage collection."""
    return GcServices(
        collector=Collector(core.database, core.settings.gc),
        explainer=Explainer(core.database, core.stores, core.settings.gc),
        deletions=DeletionQueue(core.database, core.stores),
    )
