"""Concurrent sign-ins with the same credentials are verified once, and none is refused."""

import asyncio

import httpx
import pytest

from registry.auth.credentials.passwords import THREADS, WAITING, Passwords
from tests.api.conftest import Started
from tests.support.accounts import AUTH, Accounts, Login
from tests.support.audit_log import read_audit

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("driver", ["memory"]),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

MOST = 5
MANY = THREADS + WAITING + 10
"""More requests than may wait for a thread."""


@pytest.fixture(autouse=True)
def cheap_passwords() -> None:
    """Hash passwords as servers do."""


@pytest.fixture
def proved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the passwords that were compared with a hash."""
    seen: list[str] = []
    verify = Passwords.verify

    async def watched(self: Passwords, password: str, stored: str | None) -> bool:
        seen.append(password)
        return await verify(self, password, stored)

    monkeypatch.setattr(Passwords, "verify", watched)
    return seen


async def ask(http: httpx.AsyncClient, login: Login, times: int, path: str) -> list[int]:
    answers = await asyncio.gather(
        *(http.get(path, headers=login.basic) for _ in range(times)),
    )
    return [answer.status_code for answer in answers]


@pytest.mark.parametrize("most", ["0", str(MOST)])
async def test_the_right_password_lets_all_of_them_in(
    start_api: Started, proved: list[str], most: str
) -> None:
    async with start_api({**AUTH, "limits.failed_sign_ins": most}) as api:
        ann = await Accounts.of(api.opened).user("ann")
        for path in ("/v2/", "/token"):
            assert await ask(api.http, ann, MANY, path) == [200] * MANY
        assert proved == [ann.secret]


async def test_the_same_guess_counts_each_time(start_api: Started, proved: list[str]) -> None:
    """Requests that shared one failed verification count separately in limits and audit log."""
    async with start_api({**AUTH, "limits.failed_sign_ins": str(MOST)}) as api:
        await Accounts.of(api.opened).user("ann")
        guess = Login("ann", "a guess")
        statuses = await ask(api.http, guess, MANY, "/v2/")
        assert set(statuses) == {401, 429}
        assert statuses.count(401) == len(proved) <= MOST
        booked = await read_audit(api.opened.access.audit)
        assert [row.kind for row in booked].count("sign-in.fail") == len(proved)


async def test_each_has_its_own_limit(start_api: Started) -> None:
    """A request that is over its limit does not affect requests that wait for the same result."""
    settings = {**AUTH, "limits.failed_sign_ins": str(MOST), "http.trusted_proxies": "127.0.0.1"}
    async with start_api(settings) as api:
        ann = await Accounts.of(api.opened).user("ann")
        attacker = {"X-Forwarded-For": "198.51.100.1"}
        for number in range(MOST):
            guess = Login("ann", f"guess {number}").basic | attacker
            assert (await api.http.get("/v2/", headers=guess)).status_code == 401
        places = [attacker, *({"X-Forwarded-For": f"192.0.2.{n}"} for n in range(MOST))]
        answers = await asyncio.gather(
            *(api.http.get("/v2/", headers=ann.basic | place) for place in places)
        )
        assert [answer.status_code for answer in answers] == [429] + [200] * MOST
