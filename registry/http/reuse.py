"""What a response depends on besides the bytes of its request (docs/adr/0020).

The server repeats a response to the same request while everything that it depended on is unchanged.
It puts a `Reuse` into the scope, and the endpoint that decides fills it in.
"""

from collections.abc import Callable

from msgspec import Struct

from registry.auth.caller import Validity
from registry.http.handled import Handled
from registry.oci.names import RepositoryName

SCOPE = "moorage.reuse"
"""The key of the `Reuse` in the ASGI scope. It is missing if no response may be repeated."""


class Terms(Struct, frozen=True):
    """The terms under which a response may be repeated.

    It depends on the policy, on the content of `repository`, and for as long as `validity` says on
    everything else, such as the sign-in of the caller. `address` is that of the client. `admit`,
    with a rate limit, counts a request from an address, and returns whether the limit allows it.
    `note` records what the request does to the registry.
    """

    repository: RepositoryName | None
    validity: Validity
    address: str | None = None
    admit: Callable[[str | None], bool] | None = None
    note: Callable[[], None] | None = None


class Reuse(Struct):
    """The terms, if the endpoint allows reuse, and the request as the access log describes it."""

    terms: Terms | None = None
    handled: Handled | None = None
