"""Forwarded headers of a proxy, over a connection to a server process."""

import json
from pathlib import Path

import httpx
import pytest

from tests.support.servers.server import Server, serving


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("trusted", "seen"), [("127.0.0.1", "203.0.113.7"), ("", "127.0.0.1")])
def test_the_access_log_names_the_client(
    tmp_path: Path, workers: int, trusted: str, seen: str
) -> None:
    said = {"X-Forwarded-For": "198.51.100.1, 203.0.113.7", "User-Agent": "behind"}
    settings = {"MOORAGE_HTTP__TRUSTED_PROXIES": trusted, "MOORAGE_LOG__FORMAT": "json"}
    with serving(Server(tmp_path / "data", workers, settings)) as server:
        assert httpx.get(f"{server.url}/v2/", headers=said).status_code == 200
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line[:1] == "{"]
    assert [line["client"] for line in lines if line.get("user_agent") == "behind"] == [seen]
