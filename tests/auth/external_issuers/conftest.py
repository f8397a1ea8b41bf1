"""Fixtures of the tests of this folder."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.auth.tokens import external_issuers as module
from registry.auth.tokens.external_issuers import KeySource, key_source
from registry.client.web import Web
from tests.auth.external_issuers.helpers import ISSUER, Told
from tests.support.servers.upstream import Upstream, upstream


@pytest.fixture
def server() -> Iterator[Upstream]:
    with upstream() as server:
        yield server


@pytest.fixture
def web() -> Web:
    return Web(allow_private=True)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    """Return a function that lists the logged failures."""

    def failures() -> list[logging.LogRecord]:
        return [r for r in caplog.records if r.name == module.__name__ and r.levelno > logging.INFO]

    return failures


@pytest.fixture(params=["url", "file", "discovery"])
def publish(
    request: pytest.FixtureRequest, server: Upstream, web: Web, tmp_path: Path
) -> tuple[str, Callable[[Any], object], KeySource]:
    """Return the name of an issuer, a function that replaces its keys, and its key source."""
    if request.param == "file":
        path = tmp_path / "keys.json"
        source = key_source(web, issuer=ISSUER, file=path)
        return ISSUER, lambda document: path.write_text(json.dumps(document)), source
    if request.param == "url":
        source = key_source(web, issuer=ISSUER, url=server.url("/keys"))
        return ISSUER, lambda document: server.put("/keys", document), source
    issuer = server.url()
    server.put(
        "/.well-known/openid-configuration", {"issuer": issuer, "jwks_uri": server.url("/keys")}
    )
    return (
        issuer,
        lambda document: server.put("/keys", document),
        key_source(web, issuer=issuer),
    )
