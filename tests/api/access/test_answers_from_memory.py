"""Answers from memory to callers who signed in, and the changes that end them."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from registry.auth.policy.principals import OPERATOR as CLI
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.server.answers import Answers
from tests.api.conftest import Api, Started
from tests.support.accounts import AUTH, OPERATOR, Accounts, Login, bearer, get_token, signed
from tests.support.clock import MovableClock
from tests.support.servers.differential import count_hits
from tests.support.servers.http_server import answer_lifespan, serving_app

pytestmark = pytest.mark.anyio

NAME = RepositoryName("team/app")
MANIFEST = f"/v2/{NAME}/manifests/1"
LIFETIME = 300
LEEWAY = 60


@pytest.fixture
def driver() -> str:
    return "memory"


@pytest.fixture
def movable_clock(monkeypatch: pytest.MonkeyPatch) -> MovableClock:
    return MovableClock(monkeypatch)


@dataclass
class Room:
    """A server with answers from memory, for `ann`, who may pull `team/**`."""

    api: Api
    accounts: Accounts
    http: httpx.AsyncClient
    ann: Login

    async def ask(self, headers: dict[str, str], path: str = MANIFEST) -> int:
        return (await self.http.get(path, headers=headers)).status_code

    async def learn(self, headers: dict[str, str], path: str = MANIFEST) -> None:
        """Send a request until it is answered from memory."""
        before = count_hits()
        for _ in range(3):
            assert await self.ask(headers, path) == 200
        assert count_hits() > before

    async def token(self, login: Login) -> dict[str, str]:
        return bearer(await get_token(self.api.http, login, f"repository:{NAME}:pull"))


@pytest.fixture
async def room(
    start_api: Started, movable_clock: MovableClock, tmp_path: Path
) -> AsyncIterator[Room]:
    del movable_clock, tmp_path  # the clock is replaced before anything reads it
    async with start_api({**AUTH, "auth.token_lifetime": f"{LIFETIME}s"}) as api:
        accounts = Accounts.of(api.opened)
        root = await accounts.user("root", admin=True)
        await signed(api.http, root.basic).push_image(str(NAME), "1")
        ann = await accounts.user("ann")
        await accounts.grant("ann", "team/**", "pull")
        application = api.http._transport.app  # type: ignore[attr-defined] # of httpx

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await answer_lifespan(receive, send)
            else:
                await application(scope, receive, send)

        answers = Answers(api.opened.watch, 1 << 20)
        async with (
            serving_app(app, answers=answers) as served,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}", timeout=60) as http,
        ):
            yield Room(api, accounts, http, ann)


Change = Callable[[Room], Awaitable[object]]


async def _move_tag(room: Room) -> None:
    root = Login("root", "the password of root")
    await signed(room.api.http, root.basic).push_image(str(NAME), "1", "moved")


async def _revoke_key(room: Room) -> None:
    for key in await room.accounts.access.keys.list_all():
        await room.accounts.access.keys.revoke(key.kid, OPERATOR)


CHANGES: dict[str, Change] = {
    "grant": lambda room: room.accounts.take("ann", "team/**"),
    "disabled": lambda room: room.accounts.access.users.change("ann", OPERATOR, disabled=True),
    "password": lambda room: room.accounts.access.users.set_password("ann", "new one!", OPERATOR),
    "removed": lambda room: room.accounts.access.users.remove("ann", OPERATOR),
    "tag": lambda room: room.api.opened.registry.manifests.delete(NAME, Tag("1"), CLI),
    "repository": lambda room: room.api.opened.registry.repositories.delete(NAME, CLI),
}
STATUS = {"grant": (403, 401), "tag": (404, 404), "repository": (404, 401)}
"""The statuses with Basic and with Bearer credentials; by default 401."""


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_ends_answers_to_basic_credentials(room: Room, change: str) -> None:
    await room.learn(room.ann.basic)
    await CHANGES[change](room)
    assert await room.ask(room.ann.basic) == STATUS.get(change, (401, 401))[0]


@pytest.mark.parametrize("change", [*CHANGES, "key"])
async def test_a_change_ends_answers_to_a_token(room: Room, change: str) -> None:
    headers = await room.token(room.ann)
    await room.learn(headers)
    await {**CHANGES, "key": _revoke_key}[change](room)
    assert await room.ask(headers) == STATUS.get(change, (401, 401))[1]


@pytest.mark.parametrize("sign_in", ["basic", "token"])
async def test_a_moved_tag(room: Room, sign_in: str) -> None:
    headers = room.ann.basic if sign_in == "basic" else await room.token(room.ann)
    await room.learn(headers)
    before = (await room.http.get(MANIFEST, headers=headers)).content
    await _move_tag(room)
    after = (await room.http.get(MANIFEST, headers=headers)).content
    assert after != before
    assert after == (await room.http.get(MANIFEST, headers=headers)).content


async def test_a_key_that_is_only_replaced(room: Room) -> None:
    """The negative control: tokens of the old key stay valid."""
    headers = await room.token(room.ann)
    await room.learn(headers)
    await room.accounts.access.keys.rotate(OPERATOR)
    await room.learn(headers)


async def test_a_token_that_expires(room: Room, movable_clock: MovableClock) -> None:
    headers = await room.token(room.ann)
    await room.learn(headers)
    movable_clock.forward(LIFETIME + LEEWAY - 20)
    await room.learn(headers)
    movable_clock.forward(25)
    assert await room.ask(headers) == 401


@pytest.mark.parametrize("sign_in", ["basic", "token"])
@pytest.mark.parametrize("owner", ["user", "robot"])
async def test_a_secret_that_expires(
    room: Room, movable_clock: MovableClock, sign_in: str, owner: str
) -> None:
    if owner == "user":
        login = await room.accounts.token("ann", lifetime=100)
    else:
        login = await room.accounts.robot("ci", lifetime=100)
        await room.accounts.grant("robot:ci", "team/**", "pull")
    headers = login.basic if sign_in == "basic" else await room.token(login)
    await room.learn(headers)
    movable_clock.forward(90)
    await room.learn(headers)
    movable_clock.forward(11)
    assert await room.ask(headers) == 401


async def test_an_access_token_that_is_revoked(room: Room) -> None:
    login = await room.accounts.token("ann")
    await room.learn(login.basic)
    await room.accounts.access.access_tokens.revoke("ann", "laptop", OPERATOR)
    assert await room.ask(login.basic) == 401


async def test_a_verified_password_is_checked_again_in_time(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    await room.learn(room.ann.basic)
    now = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now + 61)
    before = count_hits()
    assert await room.ask(room.ann.basic) == 200
    assert count_hits() == before


async def test_other_credentials_are_other_requests(room: Room) -> None:
    await room.learn(room.ann.basic)
    assert await room.ask({}) == 401
    assert await room.ask(Login("ann", "wrong").basic) == 401
    bob = await room.accounts.user("bob")
    assert await room.ask(bob.basic) == 403
    assert await room.ask(room.ann.basic) == 200


@pytest.mark.parametrize("sign_in", ["basic", "token"])
@pytest.mark.parametrize("change", ["grant", "disabled", "repository"])
async def test_a_change_ends_answers_about_a_blob(room: Room, change: str, sign_in: str) -> None:
    manifest = (await room.http.get(MANIFEST, headers=room.ann.basic)).json()
    path = f"/v2/{NAME}/blobs/{manifest['config']['digest']}"
    headers = room.ann.basic if sign_in == "basic" else await room.token(room.ann)
    await room.learn(headers, path)
    await CHANGES[change](room)
    expected = STATUS.get(change, (401, 401))[0 if sign_in == "basic" else 1]
    assert await room.ask(headers, path) == expected


@pytest.mark.parametrize("path", ["/v2/", f"/v2/{NAME}/tags/list"])
async def test_other_endpoints(room: Room, path: str) -> None:
    for headers in (room.ann.basic, await room.token(room.ann)):
        await room.learn(headers, path)
        assert await room.ask({}, path) == 401


async def test_the_list_of_tags_after_a_push(room: Room) -> None:
    path = f"/v2/{NAME}/tags/list"
    await room.learn(room.ann.basic, path)
    root = Login("root", "the password of root")
    await signed(room.api.http, root.basic).push_image(str(NAME), "2")
    tags = (await room.http.get(path, headers=room.ann.basic)).json()["tags"]
    assert tags == ["1", "2"]


async def test_the_referrers_after_a_push(room: Room) -> None:
    root = signed(room.api.http, Login("root", "the password of root").basic)
    subject, raw = await root.push_image(str(NAME), "1")
    path = f"/v2/{NAME}/referrers/{subject}"
    await room.learn(room.ann.basic, path)
    named = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": str(subject),
        "size": len(raw),
    }
    signature, _ = await root.push_image(str(NAME), "", "signature", subject=named)
    found = (await room.http.get(path, headers=room.ann.basic)).json()["manifests"]
    assert [each["digest"] for each in found] == [str(signature)]
