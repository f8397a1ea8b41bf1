"""Retention."""

from typing import TypedDict

from registry.app.core import Core
from registry.services.content.history import History
from registry.services.retention.retention import Retention
from registry.services.retention.rules import RetentionRules
from registry.services.retention.runs import RetentionRuns


class RetentionServices(TypedDict):
    """The services of retention, as fields of `Services`."""

    retention_rules: RetentionRules
    retention: Retention
    retention_runs: RetentionRuns


def compose_retention(core: Core, history: History) -> RetentionServices:
    """Compose retention."""
    settings, database = core.settings, core.database
    interval = settings.retention.interval
    return RetentionServices(
        retention_rules=RetentionRules(database, interval=interval),
        retention=Retention(
            database,
            interval=interval,
            grace=settings.gc.grace_period,
            read_only=settings.content.read_only,
        ),
        retention_runs=RetentionRuns(database, history),
    )
