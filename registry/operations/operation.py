"""An operation of the admin API: its input, its output and its permission."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from inspect import getdoc
from typing import Any, get_type_hints

import msgspec
from msgspec import Struct

from registry.errors import DeniedError, InputInvalidError, RegistryError
from registry.operations.context import OperationContext
from registry.operations.fields import RequestModel, ResponseModel

WITHOUT_BODY = {"GET", "DELETE"}
"""Methods with input in the path and the query; all others have it in the path and a JSON body."""

_FIELD = re.compile(r"{(\w+)}")


class Permission(Struct, frozen=True):
    """A permission. It is checked first, so that a refusal does not reveal what exists."""

    description: str
    """The callers that may run the operation, for the documentation."""
    allows: Callable[[OperationContext, Any], bool]
    requirement: Callable[[Any], str] = lambda _: "an admin account"
    """What a refused caller lacks, as in `requires an admin account`."""


ADMINS = Permission("admins", lambda context, _: context.is_admin)
SELF_OR_ADMIN = Permission(
    "the user, and admins",
    lambda context, request: context.is_admin or context.is_user(request.user),
    lambda request: f"the account {request.user} or an admin account",
)
AUTHENTICATED = Permission("every signed-in caller", lambda *_: True)


def deny(context: OperationContext, requirement: str) -> DeniedError:
    """Return the refusal of a caller who lacks `requirement`.

    It does not reveal whether the object exists.
    """
    remedy = (
        "use the password or a token without scopes"
        if context.is_bounded
        else "ask an admin of this registry"
    )
    return DeniedError(f"permission denied: requires {requirement}; {remedy}")


@dataclass(frozen=True)
class Operation:
    """A row of the table of operations. Name, description and types come from the handler.

    `raises` lists the errors that are specific to this operation.
    """

    method: str
    path: str
    handler: Callable[[OperationContext, Any], Awaitable[ResponseModel | None]]
    permission: Permission
    raises: tuple[type[RegistryError], ...] = ()
    status: int = 200

    @property
    def name(self) -> str:
        return self.handler.__name__

    @property
    def description(self) -> str:
        """The docstring of the handler."""
        return getdoc(self.handler) or ""

    @cached_property
    def request_type(self) -> type[RequestModel]:
        found: type[RequestModel] = get_type_hints(self.handler)["request"]
        return found

    @cached_property
    def response_type(self) -> Any:
        """The type of the response; NoneType for a response without a body."""
        return get_type_hints(self.handler)["return"]

    @cached_property
    def path_fields(self) -> tuple[str, ...]:
        """The input fields that are in the path."""
        return tuple(_FIELD.findall(self.path))

    @property
    def has_body(self) -> bool:
        return self.method not in WITHOUT_BODY

    @cached_property
    def _times(self) -> dict[str, Any]:
        """The types of the input fields that are times."""
        types = get_type_hints(self.request_type, include_extras=True)
        plain = get_type_hints(self.request_type)
        return {name: types[name] for name, kind in plain.items() if kind is datetime}

    def read(self, values: Mapping[str, Any]) -> RequestModel:
        """Convert fields by name to the input type; raise InputInvalidError."""
        try:
            # Values in paths and queries are text, even for numbers. But a number is not a time:
            # msgspec would take `1` for a second after 1970.
            times = {
                name: _read_time(name, values[name], kind)
                for name, kind in self._times.items()
                if name in values
            }
            return msgspec.convert({**values, **times}, self.request_type, strict=self.has_body)
        except msgspec.ValidationError as error:
            raise InputInvalidError(_explain(error)) from error

    async def run(self, context: OperationContext, request: RequestModel) -> ResponseModel | None:
        """Check the permission and run the handler.

        Raises DeniedError, and the errors of the services.
        """
        if not self.permission.allows(context, request):
            raise deny(context, self.permission.requirement(request))
        return await self.handler(context, request)


def _read_time(name: str, value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InputInvalidError(
            f"{name}: expected a time with a UTC offset, such as 2026-11-23T19:12:00Z"
        ) from error


def _explain(error: msgspec.ValidationError) -> str:
    """Return the error without a JSON path, as in `id: expected int, got str`."""
    text, _, path = str(error).replace("`", "").partition(" - at $")
    return f"{path.lstrip('.')}: {text[0].lower()}{text[1:]}" if path else text
