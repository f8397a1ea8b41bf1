"""Token endpoint: issues tokens for the subset of the requested scope that the caller may use.

Source: Distribution's specifications token and oauth.
"""

import contextlib
import hashlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from registry.auth.audit_log import Actor, Event, record
from registry.auth.authenticator import Authenticator
from registry.auth.caller import Caller
from registry.auth.client_address import ClientAddress
from registry.auth.credentials.secrets import find_secret, new_secret
from registry.auth.credentials.ttl_cache import TtlCache
from registry.auth.keys.keyring import Keyring
from registry.auth.policy.actions import Action, allowed_actions
from registry.auth.policy.principals import ANONYMOUS
from registry.auth.policy.scopes import Scopes
from registry.errors import (
    CredentialsInvalidError,
    DatabaseFrozenError,
    DatabaseUnavailableError,
)
from registry.metadata.access import refresh_tokens
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.oci.names import RepositoryName

if TYPE_CHECKING:
    from registry.auth.tokens.issuer import Issued

logger = logging.getLogger(__name__)

_MINUTE = 60_000_000
"""One minute, in microseconds."""

_ADDRESSES = 10_000
_BOOKED_EVERY = 60.0
"""Minimum seconds between two audit events of anonymous tokens from one network."""


class TokenRequest(Struct, frozen=True):
    """A token request.

    `offline` requests a refresh token as well. `client` is the name that the client gives itself.
    `find_other` returns the repository whose content a client gets for a name without a registry.
    """

    scopes: Scopes
    service: str
    client: str
    offline: bool = False
    find_other: Callable[[RepositoryName], RepositoryName | None] = lambda _: None


class Granted(Struct, frozen=True):
    """An access token, and a refresh token if one was requested."""

    access: "Issued"
    refresh: str | None


class Tokens:
    """The issuer of tokens to authenticated and anonymous callers."""

    def __init__(self, database: Database, authenticator: Authenticator, keyring: Keyring) -> None:
        self._db = database
        self._auth = authenticator
        self._keyring = keyring
        self._nobodies: TtlCache[bool] = TtlCache(_ADDRESSES, _BOOKED_EVERY)

    async def issue(self, caller: Caller, request: TokenRequest, origin: ClientAddress) -> Granted:
        """Issue a token for the allowed subset of the requested scope.

        Requesting more than is allowed is no error. Raises DatabaseUnavailableError.
        """
        policy = caller.policy
        if policy is None:
            raise DatabaseUnavailableError(
                "tokens cannot be issued: the access policy is not loaded"
            )
        access = await self._auth.tokens.issue(caller.principal, _allowed(caller, request), policy)
        # A robot from an external issuer gets no refresh token: the issuer vouches only for
        # minutes.
        lasting = caller.principal.credential.startswith(("user:", "secret:"))
        lasting = lasting and self._auth.rules.refresh_tokens and not caller.has_refresh_token
        refresh = new_secret() if request.offline and lasting else None
        hashed = (await self._keyring.get_hasher()).hash(refresh.value) if refresh else ""

        nobody = caller.principal == ANONYMOUS
        if nobody and self._is_known(origin):
            logger.info("anonymous token: %s", access.scopes.summarize())
            return Granted(access, None)

        def work(tx: Transaction) -> None:
            if refresh is not None:
                refresh_tokens.insert(
                    tx,
                    refresh.id,
                    hashed,
                    credential=caller.principal.credential,
                    service=request.service,
                    client=request.client,
                )
            record(
                tx,
                Actor(caller.principal.name, origin),
                Event.TOKEN_ISSUE,
                access.scopes.summarize() or "-",
                fold=_fold(tx, caller, access.scopes, origin, offline=refresh is not None),
                id=access.id,
                client=request.client,
                refresh=refresh is not None,
            )

        try:
            await self._db.write(work, actor=caller.principal.name)
        except DatabaseFrozenError:
            if refresh is not None:
                raise
            # Pulls must keep working. The log replaces the audit event that cannot be written now.
            logger.warning("token for %s: %s", caller.principal.name, access.scopes.summarize())
        except DatabaseUnavailableError:
            if nobody:
                self._nobodies.drop(origin.rate_limit_key)
            raise
        return Granted(access, refresh.reveal() if refresh else None)

    def _is_known(self, origin: ClientAddress) -> bool:
        """Return whether an anonymous token for this network was recorded recently.

        Without this limit, anonymous clients could fill the disk with audit events.
        """
        known = self._nobodies.find(origin.rate_limit_key) is not None
        if not known:
            self._nobodies.put(origin.rate_limit_key, True)
        return known

    async def find_refresher(self, text: str, service: str, origin: ClientAddress) -> Caller:
        """Return the caller that a refresh token belongs to.

        The refresh token remains valid, because Docker ignores a new one. Raises
        CredentialsInvalidError, TooManyRequestsError.
        """
        secret = find_secret(text)
        row = None
        if secret is not None:
            row = await self._db.read(lambda tx: refresh_tokens.find(tx, secret.id))
        hasher = await self._keyring.get_hasher()
        if (
            secret is None
            or row is None
            or not hasher.matches(secret, row.hash)
            or row.service != service
        ):
            raise await self._auth.record_failure("", origin)
        try:
            caller = await self._auth.authenticate(row.credential)
        except CredentialsInvalidError:
            raise await self._auth.record_failure("", origin) from None
        with contextlib.suppress(DatabaseFrozenError):  # a failed update must not fail the sign-in
            await self._db.write(lambda tx: refresh_tokens.set_used(tx, row.id), actor="")
        return caller


def _fold(
    tx: Transaction, caller: Caller, scopes: Scopes, origin: ClientAddress, *, offline: bool
) -> str:
    """Return the key that folds similar token events into one.

    Events are similar if they have the same caller, scopes, network and minute. A token from
    another network is a separate event, because it may be stolen.
    """
    principal, minute = caller.principal, tx.now // _MINUTE
    alike = (principal.name, principal.credential, origin.rate_limit_key, offline, minute)
    text = "\n".join([*map(str, alike), *sorted(str(scopes).split())])
    return hashlib.sha256(text.encode()).hexdigest()


def _allowed(caller: Caller, request: TokenRequest) -> Scopes:
    """Return the allowed subset of the requested scopes, in the requested order.

    A pull of a name without a registry can need a repository of the default mirror, which the
    client does not know. The result does not say why a name or action is omitted.
    """
    granted, asked = {}, request.scopes
    for name, actions in asked.repositories.items():
        allowed = actions & allowed_actions(caller.rights(name))
        if allowed:
            granted[name] = allowed
        other = request.find_other(name) if Action.PULL in actions else None
        if other is not None and other not in asked.repositories and caller.could_pull(other):
            granted[other] = frozenset({Action.PULL})
    return Scopes(granted, asked.catalog)
