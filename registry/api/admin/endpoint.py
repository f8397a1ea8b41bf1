"""The HTTP endpoints of the operations: routing, parsing requests and writing responses."""

import asyncio
import functools
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from registry.api.admin.authentication import AdminAuthenticator
from registry.api.admin.openapi import build_document
from registry.auth.audit_log import Actor
from registry.errors import InputInvalidError, MethodUnknownError, UnsupportedMediaTypeError
from registry.http.authorization import Authorizer, find_origin
from registry.http.body import read_body
from registry.http.memory import MemoryBudget
from registry.operations.context import OperationContext
from registry.operations.fields import Page, RequestModel, ResponseModel
from registry.operations.operation import Operation
from registry.operations.table import BASE, OPERATIONS
from registry.services.access.access import AccessServices
from registry.services.services import Services

_MAX_BODY = 1 << 20
_JSON = "application/json"


def list_routes(
    registry: Services, access: AccessServices, authorizer: Authorizer, body_idle: float
) -> list[Route]:
    """Return the routes of all operations and of the OpenAPI document."""
    paths: dict[str, list[Operation]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, []).append(operation)
    authenticator = AdminAuthenticator(authorizer)
    routes = [
        Route(
            BASE + path,
            _Endpoint(
                path,
                operations,
                registry,
                access,
                authenticator=authenticator,
                body_idle=body_idle,
                bodies=authorizer.limits.bodies,
            ),
        )
        for path, operations in paths.items()
    ]
    return [*routes, Route(f"{BASE}/openapi.json", _Document(authorizer))]


class _Endpoint:
    """The ASGI application of one path."""

    def __init__(
        self,
        path: str,
        operations: Iterable[Operation],
        registry: Services,
        access: AccessServices,
        *,
        authenticator: AdminAuthenticator,
        body_idle: float,
        bodies: MemoryBudget,
    ) -> None:
        self._path = path
        self._operations = {operation.method: operation for operation in operations}
        self._registry = registry
        self._access = access
        self._authenticator = authenticator
        self._idle = body_idle
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["moorage.route"] = BASE + self._path
        request = Request(scope, receive, send)
        operation = self._operations.get(request.method)
        if operation is None:
            raise MethodUnknownError(sorted(self._operations))
        caller = await self._authenticator.admit(request)
        scope["moorage.principal"] = caller.principal.name
        model = await self._read(request, operation)
        actor = Actor(caller.principal.name, find_origin(request))
        result = await operation.run(
            OperationContext(self._registry, self._access, actor, caller), model
        )
        await _write(request, operation, result)(scope, receive, send)

    async def _read(self, request: Request, operation: Operation) -> RequestModel:
        if operation.has_body:
            if request.query_params:
                # In particular, clients must not send passwords in a query, which proxies log.
                raise InputInvalidError(
                    "this operation takes a JSON body, not a query; move the fields to the body"
                )
            given = await self._read_body(request)
        else:
            given = dict(request.query_params)
        if twice := given.keys() & set(operation.path_fields):
            raise InputInvalidError(
                f"{', '.join(sorted(twice))} is in the path already; leave it out here"
            )
        return operation.read(given | request.path_params)

    async def _read_body(self, request: Request) -> dict[str, Any]:
        kind = request.headers.get("content-type")
        async with read_body(request, self._idle, _MAX_BODY, self._bodies) as raw:
            return self._decode(kind, raw)

    @staticmethod
    def _decode(kind: str | None, raw: bytes) -> dict[str, Any]:
        if kind is None and not raw:
            return {}
        if kind is None or kind.partition(";")[0].strip().lower() != _JSON:
            raise UnsupportedMediaTypeError(
                f"the body must be JSON; send it with Content-Type: {_JSON}"
            )
        try:
            given = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputInvalidError("the body is not valid JSON") from error
        if not isinstance(given, dict):
            raise InputInvalidError("the body must be a JSON object")
        return given


def _write(request: Request, operation: Operation, result: ResponseModel | None) -> Response:
    if result is None:
        return Response(status_code=operation.status)
    response = Response(msgspec.json.encode(result), operation.status, media_type=_JSON)
    if isinstance(result, Page) and result.next is not None:
        query = urlencode({**request.query_params, "last": result.next})
        response.headers["Link"] = f'<{request.scope["path"]}?{query}>; rel="next"'
    return response


class _Document:
    """The OpenAPI document. It reveals nothing about this registry, so it is public."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._limits = authorizer.limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["moorage.route"] = f"{BASE}/openapi.json"
        if scope["method"] not in {"GET", "HEAD"}:
            raise MethodUnknownError(["GET", "HEAD"])
        self._limits.check_request(find_origin(Request(scope)).address or None, None)
        below = urlsplit(str(scope["moorage.base"])).path
        body = await asyncio.to_thread(_write_document, below)
        await Response(body, media_type=_JSON)(scope, receive, send)


@functools.cache
def _write_document(below: str) -> bytes:
    """Return the document for the path prefix `below` of the registry.

    It is built at the first request, because that takes as long as the rest of the startup.
    """
    return msgspec.json.encode(build_document() | {"servers": [{"url": f"{below}/"}]})
