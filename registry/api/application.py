"""The ASGI application of the API: the middleware and the routes."""

from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from registry.api.admin.endpoint import list_routes as list_admin_routes
from registry.api.ops import Ops
from registry.api.start_gate import StartGate
from registry.api.token import KeysEndpoint, TokenEndpoint
from registry.api.v2.routes import ROUTES
from registry.errors import EndpointUnknownError, MethodUnknownError
from registry.http.authorization import Authorizer
from registry.http.cors import Cors, Preflights
from registry.http.forwarded import ForwardedHeadersMiddleware
from registry.http.mirror_paths import MirrorPaths
from registry.http.path_guard import PathGuard
from registry.http.prefix import Prefix
from registry.http.probes import HEALTH, METRICS, READINESS
from registry.http.rate_limits import Limits
from registry.http.request_context import Endpoint
from registry.http.request_log import RequestLogMiddleware
from registry.http.settings import ApiSettings
from registry.services.access.access import AccessServices
from registry.services.services import Services


def build(
    registry: Services,
    access: AccessServices,
    settings: ApiSettings,
    lifespan: Lifespan[Router],
) -> ASGIApp:
    """Return the application with all endpoints and the middleware around them."""
    http = settings.http
    ops = Ops(registry)
    authorizer = Authorizer(access.authenticator, Limits(settings.limits), settings)
    routes: list[BaseRoute] = [
        Route(entry.path, Endpoint(entry, registry, settings, authorizer)) for entry in ROUTES
    ]
    routes.append(
        Route(
            "/token",
            TokenEndpoint(
                authorizer, access.tokens, registry.mirror_lookup, http.body_idle_timeout
            ),
        )
    )
    routes += list_admin_routes(registry, access, authorizer, http.body_idle_timeout)
    paths = {
        "/": ops.get_page,
        **_list_probes(ops),
        "/.well-known/jwks.json": KeysEndpoint(authorizer).get_keys,
    }
    if http.ops_listen:
        del paths[METRICS]
    routes += [Route(path, _ReadOnly(path, handler)) for path, handler in paths.items()]
    router = Router(routes, redirect_slashes=False, default=_unknown, lifespan=lifespan)
    app: ASGIApp = MirrorPaths(router, registry.mirror_lookup)
    app = PathGuard(StartGate(app, registry.health))
    if http.cors_origins:
        app = Preflights(app, authorizer.sites)
    app = RequestLogMiddleware(app, log_probes=settings.log_probes)
    if http.cors_origins:
        app = Cors(app, authorizer.sites)
    if path := urlsplit(http.external_url).path:
        app = Prefix(app, path)
    return ForwardedHeadersMiddleware(app, http.trusted_proxies, http.external_url)


def build_ops(registry: Services, *, log_probes: bool) -> ASGIApp:
    """Return an application with only health checks and metrics."""
    probes = _list_probes(Ops(registry))
    routes = [Route(path, _ReadOnly(path, handler)) for path, handler in probes.items()]
    router = Router(routes, redirect_slashes=False, default=_unknown)
    return RequestLogMiddleware(PathGuard(router), log_probes=log_probes)


def _list_probes(ops: Ops) -> dict[str, Callable[[Request], Awaitable[Response]]]:
    return {HEALTH: ops.get_health, READINESS: ops.get_readiness, METRICS: ops.get_metrics}


class _ReadOnly:
    """An endpoint that accepts only GET and HEAD."""

    def __init__(self, path: str, handler: Callable[[Request], Awaitable[Response]]) -> None:
        self._path = path
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["moorage.route"] = self._path
        if scope["method"] not in {"GET", "HEAD"}:
            raise MethodUnknownError(["GET", "HEAD"])
        response = await self._handler(Request(scope, receive, send))
        await response(scope, receive, send)


async def _unknown(scope: Scope, receive: Receive, send: Send) -> None:
    del receive, send
    raise EndpointUnknownError(
        "no endpoint has this path; check the URL", {"path": scope["path"][:255]}
    )
