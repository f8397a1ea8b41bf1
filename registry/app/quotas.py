"""Quotas."""

from typing import TypedDict

from registry.app.core import Core
from registry.services.content.usage import Usage
from registry.services.quotas.quotas import Quotas


class QuotaServices(TypedDict):
    """The services of quotas, as fields of `Services`."""

    quotas: Quotas
    usage: Usage


def compose_quotas(core: Core) -> QuotaServices:
    """Compose quotas."""
    return QuotaServices(quotas=Quotas(core.database, core.policies), usage=Usage(core.database))
