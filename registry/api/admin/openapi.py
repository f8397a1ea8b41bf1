"""The OpenAPI document of the admin API, made from the table of operations.

Source: OpenAPI Specification 3.1.
"""

from collections.abc import Iterable
from importlib.metadata import version
from types import NoneType
from typing import Any

import msgspec

from registry import errors
from registry.api.admin.operation import Operation
from registry.api.admin.table import BASE, OPERATIONS
from registry.http.errors import find_wire_of

_REF = "#/components/schemas/"
_EVERYWHERE = (
    errors.PathInvalidError,
    errors.InputInvalidError,
    errors.UnauthorizedError,
    errors.DeniedError,
    errors.TooManyRequestsError,
    errors.DatabaseUnavailableError,
    errors.DatabaseFullError,
)
_WITH_BODY = (errors.BodyTooLargeError, errors.UnsupportedMediaTypeError, errors.BodyStalledError)
_ERROR = {
    "type": "object",
    "required": ["code", "message", "detail"],
    "properties": {"code": {"type": "string"}, "message": {"type": "string"}, "detail": {}},
}
_ERRORS = {
    "type": "object",
    "required": ["errors"],
    "properties": {"errors": {"type": "array", "minItems": 1, "items": _ERROR}},
}
_NEXT = {
    "description": "where the next page is, if there is one",
    "schema": {"type": "string"},
}
_CHALLENGE = {"description": "how to sign in", "schema": {"type": "string"}}
_RETRY = {"description": "seconds to wait", "schema": {"type": "integer", "minimum": 1}}
_HEADERS = {401: {"WWW-Authenticate": _CHALLENGE}, 429: {"Retry-After": _RETRY}}

Schemas = dict[str, Any]


def build_document() -> dict[str, Any]:
    """Return the document as JSON values."""
    schemas = _collect_schemas(OPERATIONS)
    paths: dict[str, dict[str, Any]] = {}
    used: Schemas = {"Errors": _ERRORS}
    for operation in OPERATIONS:
        described = _describe(operation, schemas)
        paths.setdefault(BASE + operation.path, {})[operation.method.lower()] = described
    asked = {operation.asked.__name__ for operation in OPERATIONS}
    used |= {name: schema for name, schema in schemas.items() if name not in asked}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Moorage admin API",
            "version": version("moorage"),
            "description": "Users, groups, robots, tokens, grants, quotas, keys, the audit log, "
            "garbage collection, retention, immutable tags, holds and the history of tags.",
        },
        "servers": [{"url": "/"}],
        "security": [{"password": []}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": used,
            "securitySchemes": {
                "password": {"type": "http", "scheme": "basic"},
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "a personal access token, or the secret of a robot",
                },
            },
        },
    }


def _collect_schemas(operations: Iterable[Operation]) -> Schemas:
    types = [kind for operation in operations for kind in (operation.asked, operation.answer)]
    _, schemas = msgspec.json.schema_components(
        [kind for kind in types if kind is not NoneType], ref_template=f"{_REF}{{name}}"
    )
    return schemas


def _describe(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    asked = schemas[operation.asked.__name__]
    beside = {k: v for k, v in asked["properties"].items() if k not in operation.in_path}
    required = [name for name in asked["required"] if name in beside]
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.text.partition("\n")[0],
        "description": f"{operation.text}\n\nWho may: {operation.who.words}.",
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": asked["properties"][name]}
            for name in operation.in_path
        ],
        "responses": {str(operation.status): _describe_answer(operation)}
        | _describe_errors(operation),
    }
    if not operation.has_body:
        described["parameters"] += [
            {"name": name, "in": "query", "required": name in required, "schema": schema}
            for name, schema in beside.items()
        ]
    elif beside:
        body = {
            "type": "object",
            "description": asked["description"],
            "properties": beside,
            "required": required,
            "additionalProperties": False,
        }
        described["requestBody"] = {
            "required": bool(required),
            "content": {"application/json": {"schema": body}},
        }
    return described


def _describe_answer(operation: Operation) -> dict[str, Any]:
    if operation.answer is NoneType:
        return {"description": "Done."}
    schema = msgspec.json.schema_components([operation.answer], ref_template=f"{_REF}{{name}}")
    answer: dict[str, Any] = {
        "description": "Done.",
        "content": {"application/json": {"schema": schema[0][0]}},
    }
    if "last" in operation.asked.__struct_fields__:
        answer["headers"] = {"Link": _NEXT}
    return answer


def _describe_errors(operation: Operation) -> dict[str, Any]:
    """Return the responses for all errors that the operation may raise, by status."""
    codes: dict[int, set[str]] = {}
    for kind in (*_EVERYWHERE, *(_WITH_BODY if operation.has_body else ()), *operation.raises):
        wire = find_wire_of(kind)
        codes.setdefault(wire.status, set()).add(wire.code)
    return {
        str(status): {
            "description": ", ".join(sorted(named)),
            "headers": _HEADERS.get(status, {}),
            "content": {"application/json": {"schema": {"$ref": f"{_REF}Errors"}}},
        }
        for status, named in sorted(codes.items())
    }
