"""nginx with a cache (`proxy_cache`) in front of a registry that requires authentication."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.accounts import ANONYMOUS, Login, bearer, get_token, signed
from tests.support.servers.nginx import Nginx, proxying
from tests.support.servers.server import Server, add_admin, serving

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("nginx")]

ALICE = Login("alice", "the password of alice")
DATA = b"a layer"

_SITE = """\
proxy_cache_path cache keys_zone=moorage:1m;
server {{
    listen 127.0.0.1:{port};
    proxy_cache moorage;
    proxy_set_header Host $http_host;
    add_header X-Cache $upstream_cache_status always;
    location / {{
        proxy_pass http://moorage;
    }}
}}
"""


@dataclass
class CachingNginx(Nginx):
    """nginx with the cache setup of its manual, without any rule about permissions."""

    def _site(self) -> str:
        return _SITE.format(port=self.port)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    add_admin(tmp_path / "data", ALICE.name, ALICE.secret)
    with serving(Server(tmp_path / "data")) as server:
        yield server


@pytest.fixture
async def http(server: Server, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client that connects through the cache."""
    with proxying(CachingNginx(tmp_path / "nginx", [server.port])) as nginx:
        async with httpx.AsyncClient(base_url=nginx.url, timeout=60) as http:
            yield http


async def test_a_cache_gives_nobody_what_needs_a_right(http: httpx.AsyncClient) -> None:
    alice = signed(http, ALICE.basic).http
    grant = {"subject": "anonymous", "pattern": "public/**", "actions": ["pull"]}
    assert (await alice.post("/api/v1/grants", json=grant)).status_code == 201
    for name in ("private/app", "public/app"):
        blob = await signed(http, ALICE.basic).push_blob(name, DATA)
        manifest, _ = await signed(http, ALICE.basic).push_image(name, "latest")
        paths = [f"blobs/{blob}", f"manifests/{manifest}", "manifests/latest"]
        for path in (f"/v2/{name}/{path}" for path in paths):
            scope = f"repository:{name}:pull"
            owner = bearer(await get_token(http, ALICE, scope))
            for headers in (ALICE.basic, owner, ALICE.basic, owner):
                answer = await http.get(path, headers=headers)
                assert answer.status_code == 200
            stranger = bearer(await get_token(http, ANONYMOUS, scope))
            if name == "private/app":
                for headers in ({}, stranger):
                    assert (await http.get(path, headers=headers)).status_code == 401, path
                continue
            # Control: public content is cached.
            answer = await http.get(path, headers=stranger)
            assert answer.status_code == 200, path
            assert (answer.headers["X-Cache"] == "HIT") == ("/blobs/" in path), path
