"""The token endpoint accepts a long list of scopes in a GET, for clients without POST."""

from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.support.servers.nginx import Nginx, proxying
from tests.support.servers.server import Server, add_admin, serving

pytestmark = pytest.mark.timeout(120)

NAMES = [f"mirror/docker.io/library/image-{number:04}" for number in range(500)]
QUERY = "account=ann&service=registry" + "".join(
    f"&scope={quote(f'repository:{name}:pull,push', safe='')}" for name in NAMES
)
AUTH = ("ann", "a long password")


def test_500_repositories_are_asked_for_by_get(tmp_path: Path) -> None:
    """Regression: regsync sends such a query of 32 KB, and got 414."""
    add_admin(tmp_path / "data", *AUTH)
    settings = {
        "MOORAGE_HTTP__EXTERNAL_URL": "http://localhost/registry",
        "MOORAGE_HTTP__TRUSTED_PROXIES": "127.0.0.1",
        "MOORAGE_AUTH__SERVICE": "registry",
    }
    server = Server(tmp_path / "data", settings=settings)
    nginx = Nginx(tmp_path / "nginx", [server.port])
    with (
        serving(server),
        proxying(nginx),
        httpx.Client(auth=AUTH, timeout=30) as http,
    ):
        for base in (server.url, f"{server.url}/registry", nginx.url):
            answer = http.get(f"{base}/token?{QUERY}")
            assert answer.status_code == 200, answer.text
            bearer = {"Authorization": f"Bearer {answer.json()['token']}"}
            listed = httpx.get(f"{server.url}/v2/{NAMES[499]}/tags/list", headers=bearer)
            assert listed.json()["errors"][0]["code"] == "NAME_UNKNOWN"
            assert http.get(f"{base}/v2/?{QUERY}").status_code == 414
        many = http.get(f"{server.url}/token?{'scope=a&' * 5000}")
        assert many.status_code == 400
        assert "a query may have at most 2000 parameters" in many.json()["errors"][0]["message"]
