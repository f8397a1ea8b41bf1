"""Requests that prepare a case. They are not measured."""

import http.client
from dataclasses import dataclass

from benchmarks.clients.exchange import Client, run
from benchmarks.registries.server import Server


class UnsupportedError(Exception):
    """A registry that lacks what a case measures."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A response with its whole body."""

    status: int
    headers: dict[str, str]
    body: bytes


def fetch(
    server: Server, target: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> Fetched:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        connection.request(method, target, headers=headers or {})
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Fetched(response.status, found, response.read())
    finally:
        connection.close()


def require(
    server: Server, target: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> Fetched:
    """Return the response. Raises UnsupportedError unless its status is 200."""
    response = fetch(server, target, headers, method)
    if response.status != 200:
        raise UnsupportedError(f"{method} {target.partition('?')[0]} returns {response.status}")
    return response


def perform(server: Server, *clients: Client) -> None:
    """Run clients at once, such as the pushes that a case needs."""
    run(server.port, clients)
