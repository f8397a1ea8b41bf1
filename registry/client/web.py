"""JSON documents of other servers, such as the keys of external token issuers."""

import asyncio
import json
from pathlib import Path
from typing import Any

from registry.client.refusals import read_refusal
from registry.client.targets import Target
from registry.client.transport import Transport
from registry.errors import UpstreamProtocolError, UpstreamUnavailableError

MAX_DOCUMENT = 1 << 20
"""Maximum size of a document, in bytes."""

WHOLE = 10.0
"""Timeout of a whole request, from name resolution to the last byte, in seconds."""

_OK = 200
# Documents are fetched rarely, so no connection is kept.
_HEADERS = {"Accept": "application/json", "Connection": "close"}


class Web:
    """A client that calls only public addresses unless `allow_private` is set.

    With it, private addresses may be called as well, also with plain HTTP. `ca_file` contains PEM
    certificates of authorities that are trusted in addition to the system's. Raises ConfigError if
    it is unusable.
    """

    def __init__(self, *, allow_private: bool = False, ca_file: Path | None = None) -> None:
        self._transport = Transport(allow_private=allow_private, ca_file=ca_file)

    async def get_json(self, url: str) -> Any:
        """Return the JSON document at `url`. Redirects are not followed.

        Raises UpstreamError if it cannot be fetched. The error message never contains text of the
        other server.
        """
        target = Target.parse(url)
        try:
            async with asyncio.timeout(WHOLE):
                raw = await self._fetch(target)
        except TimeoutError:
            raise UpstreamUnavailableError(
                f"{target.origin} did not respond within {WHOLE:g} s"
            ) from None
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            raise UpstreamProtocolError(
                f"{target.origin} returned a document that is not JSON"
            ) from None

    async def _fetch(self, target: Target) -> bytes:
        async with await self._transport.open("GET", target, _HEADERS) as response:
            if response.status != _OK:
                raise await read_refusal(response)
            return await response.read_all(MAX_DOCUMENT)
