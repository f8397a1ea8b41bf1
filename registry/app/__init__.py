"""Composition root: builds a registry from the settings.

`asgi` builds the ASGI application. Commands do not need it, so this module does not import it.
"""

from registry.app.composition import compose, compose_runner
from registry.app.keys import export_private_keys
from registry.app.lifecycle import open_runtime, open_unprovisioned, rehearse, require_ready
from registry.app.runtime import Runtime
from registry.app.stores import look_at_stores

__all__ = [
    "Runtime",
    "compose",
    "compose_runner",
    "export_private_keys",
    "look_at_stores",
    "open_runtime",
    "open_unprovisioned",
    "rehearse",
    "require_ready",
]
