"""Responses with status 503 while a starting process waits for its database or store."""

from starlette.types import ASGIApp, Receive, Scope, Send

from registry.errors import NotReadyError
from registry.http.probes import PROBES
from registry.services.maintenance.health import Health


class StartGate:
    """ASGI middleware that accepts only probes until the registry is ready."""

    def __init__(self, app: ASGIApp, health: Health) -> None:
        self._app = app
        self._health = health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        waiting_for = self._health.waiting_for
        if waiting_for and scope["type"] == "http" and scope["path"] not in PROBES:
            parts = " and ".join(waiting_for)
            raise NotReadyError(
                f"the registry is starting and waits for its {parts}; try again later"
            )
        await self._app(scope, receive, send)
