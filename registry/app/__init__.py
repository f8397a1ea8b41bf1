"""Composition root: builds a registry or an ASGI application from the settings."""

from registry.app.asgi import StartRules, create_app, ops_asgi
from registry.app.composition import compose, compose_runner
from registry.app.keys import export_private_keys
from registry.app.lifecycle import open_runtime, open_unprovisioned, rehearse, require_ready
from registry.app.runtime import Runtime
from registry.app.stores import look_at_stores

__all__ = [
    "Runtime",
    "StartRules",
    "compose",
    "compose_runner",
    "create_app",
    "export_private_keys",
    "look_at_stores",
    "open_runtime",
    "open_unprovisioned",
    "ops_asgi",
    "rehearse",
    "require_ready",
]
