"""The OpenAPI document of the admin API, and whether responses match it.

Schemathesis generates valid and invalid requests from the document and checks the responses.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from registry.api.admin.openapi import build_document
from registry.operations.operation import Operation
from registry.operations.table import BASE, OPERATIONS
from tests.support.servers.server import Server, add_admin, serving

EXAMPLES = 20
PASSWORD = "the password of root"  # noqa: S105 - of a test
CHECKS = [
    allow_header_conformance,
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
]


CHEAP_PASSWORDS = """
from argon2 import PasswordHasher
from registry.auth.credentials import passwords

cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
passwords.PasswordHasher = lambda **_: cheap
"""
"""Runs in the server before everything else: a third of the requests have a wrong password."""


@dataclass(frozen=True)
class Served:
    """A running registry and its OpenAPI document."""

    server: Server
    schema: Any


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("openapi")
    (folder / "sitecustomize.py").write_text(CHEAP_PASSWORDS)
    data = folder / "data"
    add_admin(data, "root", PASSWORD)
    settings = {"MOORAGE_LIMITS__FAILED_SIGN_INS": "0"}
    with serving(Server(data, settings=settings, patches=folder)) as server:
        yield Served(server, schemathesis.openapi.from_url(f"{server.url}{BASE}/openapi.json"))


def test_anybody_may_read_the_document(served: Served) -> None:
    answer = httpx.get(f"{served.server.url}{BASE}/openapi.json")
    assert answer.status_code == 200
    assert answer.json() == build_document()
    assert httpx.post(f"{served.server.url}{BASE}/openapi.json").status_code == 405


def test_the_document_has_every_operation_and_no_other() -> None:
    document = build_document()
    described = {
        (method, path): entry["operationId"]
        for path, entries in document["paths"].items()
        for method, entry in entries.items()
    }
    assert described == {(o.method.lower(), BASE + o.path): o.name for o in OPERATIONS}


def test_no_answer_has_a_field_for_a_stored_secret() -> None:
    schemas = build_document()["components"]["schemas"]
    secret = {
        (name, field)
        for name, schema in schemas.items()
        for field in schema.get("properties", ())
        if field in {"secret", "password", "hash", "generation", "jwk"}
    }
    assert secret == {("RobotSecret", "secret"), ("TokenSecret", "secret")}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_answers_are_as_the_document_says(served: Served, operation: Operation) -> None:
    described = served.schema[BASE + operation.path][operation.method]
    cases = described.as_strategy(GenerationMode.POSITIVE)
    if operation.request_type.__struct_fields__:
        cases |= described.as_strategy(GenerationMode.NEGATIVE)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def run(case: Case[Any]) -> None:
        case.call_and_validate(checks=CHECKS, auth=("root", PASSWORD))

    run()
