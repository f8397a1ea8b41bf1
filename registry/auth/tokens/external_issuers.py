"""External token issuers and their keys, which are fetched on a timer.

A token never triggers a request. Otherwise anybody who sends tokens with unknown key IDs could
decide when, and how often, another server is called.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from registry.auth.credentials.ttl_cache import TtlCache
from registry.auth.keys.jose import (
    VerificationKey,
    add_aliases,
    public_keys,
    require_current,
    verify,
)
from registry.auth.oidc_settings import OidcRule
from registry.auth.tokens.issuer import read_issuer
from registry.client.web import MAX_DOCUMENT, Web
from registry.errors import UpstreamError

logger = logging.getLogger(__name__)

KeySource = Callable[[], Awaitable[object]]
"""A function that fetches a JWKS document; it raises UpstreamError if there is none."""

FIRST_PAUSE = 1.0
"""The delay before the second attempt of a failed fetch, in seconds. It doubles each time."""

_TYPES: Final = frozenset({"", "jwt"})
_RECENT: Final = 4096
"""The number of tokens to remember, each with claims of up to 8 KiB."""
_RECENT_SECONDS: Final = 60.0


def key_source(web: Web, *, issuer: str, url: str = "", file: Path | None = None) -> KeySource:
    """Return the source of an issuer's keys: the file, else the URL, else by OpenID discovery."""
    if file is not None:
        return lambda: asyncio.to_thread(_read, file)
    if url:
        return lambda: web.get_json(url)
    return lambda: _discover(web, issuer)


class ExternalIssuer:
    """An external server whose tokens are accepted. Refreshes its keys between `start` and `stop`.

    `refresh` is in seconds. No token is valid before the first successful fetch of the keys.
    """

    def __init__(self, issuer: str, audience: str, source: KeySource, *, refresh: float) -> None:
        self.issuer: Final = issuer
        self._audience = audience
        self._source = source
        self._refresh = refresh
        self._keys: Mapping[str, VerificationKey] = {}
        self._proved: TtlCache[Mapping[str, Any]] = TtlCache(_RECENT, _RECENT_SECONDS)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start to fetch the keys, without waiting for them: the issuer may be down."""
        self._task = asyncio.create_task(self._repeat(), name=f"keys of {self.issuer}")

    async def stop(self) -> None:
        """Stop fetching, also during a fetch."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def is_issuer_of(self, token: str) -> bool:
        """Return whether a token names this issuer, without verifying it."""
        return self._proved.find(token) is not None or read_issuer(token) == self.issuer

    def verify(self, token: str) -> Mapping[str, Any]:
        """Return the claims of a token of this issuer; raise TokenInvalidError.

        `sub` and `nbf` may be missing. A token that was verified recently is not verified again,
        unless the issuer's keys have changed since.
        """
        claims = self._proved.find(token)
        if claims is not None:
            require_current(claims, external=True)
            return claims
        claims = verify(
            token,
            self._keys,
            issuer=self.issuer,
            audience=self._audience,
            types=_TYPES,
            external=True,
        )
        self._proved.put(token, claims)
        return claims

    async def _repeat(self) -> None:
        pause = FIRST_PAUSE
        while True:
            if await self._fetch():
                wait, pause = self._refresh, FIRST_PAUSE
            else:
                wait, pause = min(pause, self._refresh), pause * 2
            await asyncio.sleep(wait)

    async def _fetch(self) -> bool:
        """Fetch the keys and return whether that succeeded.

        If it fails, the previous keys are kept.
        """
        try:
            document = _some_keys(await self._source())
            keys = add_aliases(document)
        except UpstreamError as error:
            logger.warning("cannot fetch the keys of %s: %s", self.issuer, error.message)
        except Exception:
            # The timer must survive every failure.
            logger.exception("cannot fetch the keys of %s", self.issuer)
        else:
            if keys != self._keys:
                logger.info(
                    "the keys of %s have changed: there are now %d", self.issuer, len(document)
                )
                self._keys = keys
                # Tokens that a removed key verified are no longer valid.
                self._proved = TtlCache(_RECENT, _RECENT_SECONDS)
            return True
        return False


class OidcIssuer(ExternalIssuer):
    """An issuer of ID tokens. Rules on their claims map them to robots."""

    def __init__(
        self,
        issuer: str,
        audience: str,
        source: KeySource,
        rules: Iterable[OidcRule],
        *,
        refresh: float,
    ) -> None:
        super().__init__(issuer, audience, source, refresh=refresh)
        self._rules = tuple(rules)

    def match(self, claims: Mapping[str, Any]) -> str | None:
        """Return the robot of the first rule that the verified claims match, else None."""
        return next((rule.robot for rule in self._rules if rule.matches(claims)), None)


def _some_keys(document: object) -> dict[str, VerificationKey]:
    keys = public_keys(document)
    if not keys:
        raise UpstreamError("the document contains no usable key")
    return keys


def _read(file: Path) -> object:
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_DOCUMENT)
        return json.loads(raw)
    except OSError as error:
        raise UpstreamError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, RecursionError):
        raise UpstreamError(f"{file} is not JSON") from None


async def _discover(web: Web, issuer: str) -> object:
    """Fetch the keys from the `jwks_uri` of the issuer.

    Source: OpenID Connect Discovery 1.0, section 4.
    """
    document = await web.get_json(f"{issuer.removesuffix('/')}/.well-known/openid-configuration")
    fields = document if isinstance(document, dict) else {}
    # Without this check, one issuer on a server could speak for all issuers on it.
    if fields.get("issuer") != issuer:
        raise UpstreamError(f"the configuration at {issuer} is for another issuer")
    place = fields.get("jwks_uri")
    if not isinstance(place, str):
        raise UpstreamError(f"the configuration at {issuer} has no valid jwks_uri")
    return await web.get_json(place)
