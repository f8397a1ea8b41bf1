"""The effective settings in printable form."""

from typing import Any

from registry.config.tree import SETTINGS, Settings


def show(settings: Settings) -> dict[str, Any]:
    """Return the effective settings as JSON values, with readable units and masked secrets."""
    shown: dict[str, Any] = {
        "data": str(settings.data),
        "config": str(settings.source) if settings.source else None,
    }
    effective = {
        "storage.root": str(settings.storage_root),
        "database.url": settings.database_url,
    }
    for key, setting in SETTINGS.items():
        section, name = key.split(".")
        value = effective.get(key, getattr(getattr(settings, section), name))
        shown.setdefault(section, {})[name] = setting.kind.show(value)
    return shown
