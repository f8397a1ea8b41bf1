"""Client of the admin API for tests."""

from dataclasses import dataclass
from typing import Any

import httpx

from registry.operations.table import BASE
from tests.support.accounts import Login
from tests.support.kit import codes


@dataclass(frozen=True)
class Admin:
    """Caller of the admin API."""

    http: httpx.AsyncClient
    login: Login

    async def send(
        self, method: str, path: str, body: Any = None, *, expect: int = 200, **query: Any
    ) -> Any:
        """Send a request, require the status `expect`, and return the JSON body or None."""
        answer = await self.answer(method, path, body, **query)
        assert answer.status_code == expect, (answer.status_code, answer.text)
        return answer.json() if answer.content else None

    async def refused(self, method: str, path: str, body: Any = None, **query: Any) -> str:
        """Send a request that must fail, and return its status, error code and message."""
        answer = await self.answer(method, path, body, **query)
        [code] = codes(answer)
        return f"{answer.status_code} {code}: {answer.json()['errors'][0]['message']}"

    async def answer(
        self, method: str, path: str, body: Any = None, **query: Any
    ) -> httpx.Response:
        headers = self.login.basic if self.login.name else {}
        answer = await self.http.request(
            method, BASE + path, headers=headers, json=body, params=query
        )
        assert answer.headers["Cache-Control"] == "no-store"
        return answer

    def by(self, login: Login) -> "Admin":
        """Return the same client for another caller."""
        return Admin(self.http, login)
