"""The log warning about passwords without TLS, and the settings that suppress it."""

import logging

import pytest

from tests.api.conftest import Api, Started
from tests.support.accounts import AUTH

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("driver", ["memory"]),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

PROXY = {**AUTH, "http.trusted_proxies": "127.0.0.1"}


async def warnings(api: Api, caplog: pytest.LogCaptureFixture, **headers: str) -> list[str]:
    """Return the warnings in the log after two requests that are challenged."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    for _ in range(2):
        assert (await api.http.get("/v2/", headers=given)).status_code == 401
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


async def test_a_challenge_that_others_can_read_is_warned_of_once(
    start_api: Started, caplog: pytest.LogCaptureFixture
) -> None:
    async with start_api(PROXY) as api:
        [warning] = await warnings(api, caplog, x_forwarded_for="192.0.2.1")
    for remedy in ("tls_cert", "trusted_proxies", "external_url"):
        assert remedy in warning


async def test_on_this_machine_there_is_nothing_to_warn_of(
    start_api: Started, caplog: pytest.LogCaptureFixture
) -> None:
    async with start_api(PROXY) as api:
        assert await warnings(api, caplog) == []


@pytest.mark.parametrize("how", ["proxy", "external_url"])
async def test_a_proxy_with_tls_silences_it(
    start_api: Started, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    headers = {"x_forwarded_for": "192.0.2.1"}
    settings = dict(PROXY)
    if how == "proxy":
        headers["x_forwarded_proto"] = "https"
    else:
        settings["http.external_url"] = "https://registry.example.org"
    async with start_api(settings) as api:
        assert await warnings(api, caplog, **headers) == []
