"""Fixtures of the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.tls.helpers import TlsServer
from tests.support.servers.server import serving


@pytest.fixture(params=[1, 2])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TlsServer]:
    with serving(TlsServer(tmp_path / "data", request.param)) as server:
        assert isinstance(server, TlsServer)
        yield server
