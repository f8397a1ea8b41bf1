"""The OpenAPI document of the admin API, made from the table of operations.

Source: OpenAPI Specification 3.1.
"""

from collections.abc import Iterable
from importlib.metadata import version
from inspect import cleandoc
from types import NoneType
from typing import Any

import msgspec

from registry import errors
from registry.http.errors import find_entry_of
from registry.operations.operation import Operation
from registry.operations.table import BASE, OPERATIONS

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
    "description": "The errors of a failed request. `message` says what is wrong and what to do.",
    "required": ["errors"],
    "properties": {"errors": {"type": "array", "minItems": 1, "items": _ERROR}},
}
_NEXT = {
    "description": "The URL of the next page, if there is one.",
    "schema": {"type": "string"},
}
_CHALLENGE = {"description": "How to authenticate.", "schema": {"type": "string"}}
_RETRY = {
    "description": "The number of seconds to wait before the next request.",
    "schema": {"type": "integer", "minimum": 1},
}
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
    inputs = {operation.request_type.__name__ for operation in OPERATIONS}
    used |= {name: _require_all(schema) for name, schema in schemas.items() if name not in inputs}
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Moorage admin API",
            "version": version("moorage"),
            "description": "Manages users, groups, robots, tokens, grants, quotas, signing keys, "
            "garbage collection, retention, immutable tags, holds, repositories, tags and their "
            "history, and reports usage and the audit log.",
        },
        "servers": [{"url": "/"}],
        "security": [{"password": []}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": used,
            "securitySchemes": {
                "password": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "The name of a user or robot, with its password or token.",
                },
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A personal access token, or the secret of a robot.",
                },
            },
        },
    }
    # The defaults of tuples become lists.
    return msgspec.json.decode(msgspec.json.encode(document), type=dict[str, Any])


def _collect_schemas(operations: Iterable[Operation]) -> Schemas:
    types = [
        kind
        for operation in operations
        for kind in (operation.request_type, operation.response_type)
    ]
    _, schemas = msgspec.json.schema_components(
        [kind for kind in types if kind is not NoneType], ref_template=f"{_REF}{{name}}"
    )
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = cleandoc(schema["description"])
    return schemas


def _require_all(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an output, which has all fields, also those with a default."""
    if "properties" not in schema:
        return schema
    properties = {
        name: {key: value for key, value in each.items() if key != "default"}
        for name, each in schema["properties"].items()
    }
    return schema | {"properties": properties, "required": list(properties)}


def _describe(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    fields = schemas[operation.request_type.__name__]
    beside = {k: v for k, v in fields["properties"].items() if k not in operation.path_fields}
    required = [name for name in fields["required"] if name in beside]
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.description.partition("\n")[0],
        "description": _describe_operation(operation),
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": fields["properties"][name]}
            for name in operation.path_fields
        ],
        "responses": {str(operation.status): _describe_response(operation)}
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
            "description": fields["description"],
            "properties": beside,
            "required": required,
            "additionalProperties": False,
        }
        described["requestBody"] = {
            "required": bool(required),
            "content": {"application/json": {"schema": body}},
        }
    return described


def _describe_operation(operation: Operation) -> str:
    return f"{operation.description}\n\nAllowed for: {operation.permission.description}."


def _describe_response(operation: Operation) -> dict[str, Any]:
    if operation.response_type is NoneType:
        return {"description": "Success, without a body."}
    schema = msgspec.json.schema_components(
        [operation.response_type], ref_template=f"{_REF}{{name}}"
    )
    response: dict[str, Any] = {
        "description": "Success.",
        "content": {"application/json": {"schema": schema[0][0]}},
    }
    if "last" in operation.request_type.__struct_fields__:
        response["headers"] = {"Link": _NEXT}
    return response


def _describe_errors(operation: Operation) -> dict[str, Any]:
    """Return the responses for all errors that the operation may raise, by status."""
    codes: dict[int, set[str]] = {}
    for kind in (*_EVERYWHERE, *(_WITH_BODY if operation.has_body else ()), *operation.raises):
        entry = find_entry_of(kind)
        codes.setdefault(entry.status, set()).add(entry.code)
    return {
        str(status): {
            "description": ", ".join(sorted(named)),
            "headers": _HEADERS.get(status, {}),
            "content": {"application/json": {"schema": {"$ref": f"{_REF}Errors"}}},
        }
        for status, named in sorted(codes.items())
    }
