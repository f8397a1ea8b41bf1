"""Manifest GET with credentials. Peers without a user of the benchmark serve it openly."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.cases.case import Case, Sizes, Values
from benchmarks.cases.requests import ACCEPT, REPOSITORY, get, make_rate_metrics, push_content
from benchmarks.registries.moorage import add_user, fetch_token, make_basic
from benchmarks.registries.peers import DEBIAN, with_htpasswd
from benchmarks.registries.registry import Layout, Registry
from benchmarks.registries.server import Server

Headers = dict[str, str]
SCOPE = f"repository:{REPOSITORY}:pull"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A server, and the function that returns the headers of a signed-in client."""

    server: Server
    make_headers: Callable[[], Headers]


def is_own(server: Server) -> bool:
    return server.registry.layout is Layout.MOORAGE


def prepare_bearer(server: Server) -> SignedIn:
    """Start the server. Only Moorage requires a token."""
    if not is_own(server):
        server.start()
        push_content(server)
        return SignedIn(server, dict)
    add_user(server)
    server.start()
    push_content(server, make_basic())
    return SignedIn(server, lambda: fetch_token(server, SCOPE))


def prepare_basic(server: Server) -> SignedIn:
    """Start the server. Moorage and Debian's docker-registry require Basic credentials."""
    if is_own(server):
        add_user(server)
    server.start()
    headers = make_basic() if is_own(server) or server.name == DEBIAN else {}
    push_content(server, headers)
    return SignedIn(server, lambda: headers)


def require_basic(registries: list[Registry]) -> list[Registry]:
    return [with_htpasswd(each) if each.name == DEBIAN else each for each in registries]


def make_case(name: str, title: str, sizes: Sizes) -> Case[SignedIn]:
    def measure(signed_in: SignedIn) -> Values:
        target = f"/v2/{REPOSITORY}/manifests/v7"
        headers = {**ACCEPT, **signed_in.make_headers()}
        return get(signed_in.server, target, sizes.seconds, headers)

    return Case(name, make_rate_metrics(title), measure)
