"""Authentication: maps passwords, secrets and tokens to principals."""

import contextlib
import logging
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from msgspec.structs import replace

from registry import clock
from registry.auth.caller import OPEN, Caller, Validity, rights_of_actions
from registry.auth.client_address import ClientAddress
from registry.auth.credentials.limiter import SignInLimiter
from registry.auth.credentials.passwords import Passwords
from registry.auth.credentials.secrets import Secret, find_secret
from registry.auth.credentials.ttl_cache import SingleFlight, TtlCache
from registry.auth.keys.keyring import Keyring
from registry.auth.keys.token_length import require_short
from registry.auth.policy.actions import Rights, require_pull
from registry.auth.policy.policy import Policy
from registry.auth.policy.policy_cache import PolicyCache
from registry.auth.policy.principals import ANONYMOUS, Principal, of_external, of_robot, of_user
from registry.auth.policy.scopes import Scopes
from registry.auth.policy.subjects import ROBOT_SIGN_IN
from registry.auth.settings import AuthSettings
from registry.errors import (
    CredentialsInvalidError,
    DatabaseUnavailableError,
    TokenInvalidError,
    TooManyRequestsError,
)
from registry.metadata.access import refresh_tokens, secrets, users
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.oci.names import RepositoryName

if TYPE_CHECKING:
    from registry.auth.tokens.external_issuers import ExternalIssuer, OidcIssuer
    from registry.auth.tokens.issuer import TokenClaims, TokenIssuer

logger = logging.getLogger(__name__)

OIDC_SIGN_IN = "oidc"
"""The user name with which a client sends an external issuer's ID token as the password."""

_RECENT = 10_000
_RECENT_SECONDS = 60.0
_USED_EVERY = 300 * 1_000_000
"""The minimum time between two writes of a secret's last use, in microseconds."""

_LEEWAY = 60.0
_SECOND = 1_000_000


def _find_end(principal: Principal, policy: Policy) -> float:
    """Return the time at which the credential of the principal expires, in microseconds."""
    end = policy.find_expiry(principal.credential)
    return math.inf if end is None else end


def _wrong() -> CredentialsInvalidError:
    # The same message for all cases: it must not reveal which part was wrong.
    return CredentialsInvalidError("wrong user name or password")


class Authenticator:
    """Authenticates callers. The policy decides what a caller may do."""

    def __init__(
        self,
        database: Database,
        policies: PolicyCache,
        keyring: Keyring,
        rules: AuthSettings,
        *,
        issuer: "ExternalIssuer | None" = None,
        oidc: "Sequence[OidcIssuer]" = (),
        failed_sign_ins: int = 30,
    ) -> None:
        self.rules = rules
        self.policies = policies
        self.passwords = Passwords()
        self._db = database
        self._keyring = keyring
        self._issuer = issuer
        self._oidc = oidc
        self._external_issuers = [*oidc, issuer] if issuer is not None else list(oidc)
        self._limiter = SignInLimiter(failed_sign_ins)
        self._signed_in: TtlCache[Principal] = TtlCache(_RECENT, _RECENT_SECONDS)
        self._signing_in = SingleFlight()
        self._bearers: TtlCache[TokenClaims] = TtlCache(_RECENT, _RECENT_SECONDS)
        self._used: dict[str, int] = {}

    @cached_property
    def tokens(self) -> "TokenIssuer":
        """The issuer of the tokens of this registry."""
        # It loads the cryptography, 10 MiB, which a registry without users never needs.
        from registry.auth.tokens.issuer import TokenIssuer  # noqa: PLC0415

        return TokenIssuer(self._keyring, self.rules)

    async def find_open(self, since: float | None = None) -> Caller | None:
        """Return the caller of every request if this registry needs no sign-in, else None.

        `since` is as in `PolicyCache.get`, here and in the other methods.
        """
        if self.rules.is_open:
            return OPEN
        if self.rules.requires_sign_in:
            return None
        policy = await self.policies.get(since)
        return None if policy.has_users else OPEN

    async def authenticate_password(
        self, name: str, password: str, origin: ClientAddress, since: float | None = None
    ) -> Caller:
        """Authenticate a user name with a password, or with a secret or an ID token in its place.

        Raises CredentialsInvalidError, TooManyRequestsError.
        """
        if not self.rules.local_users:
            raise CredentialsInvalidError(
                "local accounts are disabled: sign in with a token of the external issuer"
            )
        policy = await self.policies.get(since)
        if not password:
            # No account has an empty password. Tools that do not support identity tokens send an
            # empty one with each request.
            raise _wrong()
        given = f"{name}\0{password}"
        principal = self._find_signed_in(given, policy)
        if principal is None:
            # Docker sends one request for each layer, and CI starts many jobs at the same time.
            await self._signing_in.wait(given)
            principal = self._find_signed_in(given, policy)
        if principal is None:
            with self._signing_in.proving(given):
                principal = await self._sign_in(name, password, policy, origin)
                if name != OIDC_SIGN_IN:  # an ID token sets its own lifetime
                    self._signed_in.put(given, principal)
        secret = find_secret(password)
        has_refresh_token = secret is not None and policy.find_secret(secret.id) is None
        deadline = self._signed_in.find_deadline(given)
        return replace(
            self._caller(principal, policy),
            has_refresh_token=has_refresh_token,
            validity=None if deadline is None else Validity(_find_end(principal, policy), deadline),
        )

    def _find_signed_in(self, given: str, policy: Policy) -> Principal | None:
        """Return the cached principal of these credentials if its account is still valid."""
        found = self._signed_in.find(given)
        if found is None or policy.find_account(found.credential, clock.now_us()) is None:
            return None
        return found

    async def authenticate(self, credential: str) -> Caller:
        """Return the caller who signed in with this credential before.

        Raises CredentialsInvalidError if the credential is no longer valid.
        """
        policy = await self.policies.get()
        account = policy.find_account(credential, clock.now_us())
        if account is None:
            raise _wrong()
        return self._caller(Principal(account.name, credential), policy)

    async def anonymous(self) -> Caller:
        """Return the anonymous caller, who has the rights that are granted to `anonymous`."""
        return self._caller(ANONYMOUS, await self.policies.get())

    async def authenticate_token(self, token: str, since: float | None = None) -> Caller:
        """Authenticate an access token of this registry or of the external issuer.

        Raises TokenInvalidError.
        """
        require_short(token)
        policy = await self.policies.get(since)
        bearer = self._bearers.find(token)
        if bearer is None and self._issuer is not None and self._issuer.is_issuer_of(token):
            return self._external_caller(self._issuer, token, policy)
        if not self.rules.local_users:
            raise TokenInvalidError("the token is not from the issuer that this registry trusts")
        if bearer is None:
            bearer = self.tokens.read(token, policy)
            self._bearers.put(token, bearer)
        if not self.tokens.is_trusted(bearer.kid, policy) or (
            bearer.expires + _LEEWAY < clock.now_us() / _SECOND
        ):
            raise TokenInvalidError("the token has expired or was revoked")
        account = None
        if bearer.principal.credential:
            account = policy.find_account(bearer.principal.credential, clock.now_us())
            if account is None:
                raise TokenInvalidError("the credential behind the token is no longer valid")
        return Caller(
            bearer.principal,
            account,
            policy,
            lambda name: require_pull(policy.rights(account, name)),
            bearer.scopes,
            bearer.since,
            validity=Validity(
                min((bearer.expires + _LEEWAY) * _SECOND, _find_end(bearer.principal, policy))
            ),
        )

    def _caller(self, principal: Principal, policy: Policy) -> Caller:
        account = policy.find_account(principal.credential, clock.now_us())
        if account is None and principal != ANONYMOUS:
            raise _wrong()  # not anonymous: the credential is no longer valid
        return Caller(
            principal, account, policy, lambda name: require_pull(policy.rights(account, name))
        )

    @staticmethod
    def _external_caller(issuer: "ExternalIssuer", token: str, policy: Policy) -> Caller:
        claims = issuer.verify(token)
        scopes = Scopes.from_claims(claims.get("access"))
        made = int(float(claims["iat"]) * _SECOND)

        def rights(name: RepositoryName) -> Rights:
            # The issuer alone decides what its token allows. But a token from before a repository
            # was removed must not apply to a later repository of the same name.
            gone = policy.was_removed_after(name, made)
            return rights_of_actions(
                frozenset() if gone else scopes.repositories.get(name, frozenset())
            )

        return Caller(of_external(str(claims.get("sub", ""))), None, None, rights, scopes)

    async def _sign_in(
        self, name: str, password: str, policy: Policy, origin: ClientAddress
    ) -> Principal:
        # Check what cannot be guessed first: no limit may block a correct secret or ID token.
        if name == OIDC_SIGN_IN:
            found = self._from_id_token(password, policy)
        else:
            found = await self._check_secret(name, password, policy)
        if found is not None:
            return found
        account = (await self._keyring.get_hasher()).hash(name)
        with self._limiter.attempt(origin, account):
            found = await self._check_password(name, password, policy, origin, account)
            if found is None:
                await self._fail(name, policy, origin)
        if found is None and name == OIDC_SIGN_IN:
            raise CredentialsInvalidError("no rule of [[auth.oidc]] accepts this ID token")
        if found is None:
            raise _wrong()
        return found

    async def record_failure(self, name: str, origin: ClientAddress) -> CredentialsInvalidError:
        """Count a failed sign-in by something other than a password, and return the error to raise.

        Raises TooManyRequestsError if a limit is reached.
        """
        account = (await self._keyring.get_hasher()).hash(name)
        with self._limiter.attempt(origin, account):
            await self._db.read(lambda tx: self._limiter.check(tx, origin, account))
            await self._fail(name, await self.policies.get(), origin)
        return _wrong()

    async def _fail(self, name: str, policy: Policy, origin: ClientAddress) -> None:
        account = (await self._keyring.get_hasher()).hash(name)
        robot = name.startswith(ROBOT_SIGN_IN) and policy.find_robot(
            name.removeprefix(ROBOT_SIGN_IN)
        )
        known = name if robot or policy.find_user(name) or name == OIDC_SIGN_IN else None
        await self._db.write(lambda tx: self._limiter.fail(tx, origin, account, known), actor="")

    async def _check_secret(self, name: str, text: str, policy: Policy) -> Principal | None:
        """Return the owner of a secret that this registry issued."""
        secret = find_secret(text)
        if secret is None:
            return None
        row = policy.find_secret(secret.id)
        if row is None:
            return await self._check_refresh_token(name, secret, policy)
        if not (await self._keyring.get_hasher()).matches(secret, row.hash):
            return None
        owner = policy.find_account(f"secret:{row.id}", clock.now_us())
        if owner is None or owner.name != name:
            return None
        await self._note_use(row.id)
        return Principal(owner.name, f"secret:{row.id}")

    async def _check_refresh_token(
        self, name: str, secret: Secret, policy: Policy
    ) -> Principal | None:
        """Return the user who received the refresh token at `docker login`.

        Tools that read `config.json` but do not support identity tokens send it as the password.
        """
        row = await self._db.read(lambda tx: refresh_tokens.find(tx, secret.id))
        hasher = await self._keyring.get_hasher()
        if row is None or row.service != self.rules.service:
            return None
        if not hasher.matches(secret, row.hash):
            return None
        owner = policy.find_account(row.credential, clock.now_us())
        if owner is None or owner.name != name:
            return None
        await self._note_use(row.id, refresh_tokens.set_used)
        return Principal(owner.name, row.credential)

    async def _note_use(
        self, secret_id: str, set_used: Callable[[Transaction, str], None] = secrets.set_used
    ) -> None:
        now = clock.now_us()
        if now - self._used.get(secret_id, 0) > _USED_EVERY:
            self._used[secret_id] = now
            # The write is optional: robots must be able to pull while the database is read-only.
            with contextlib.suppress(DatabaseUnavailableError):
                await self._db.write(lambda tx: set_used(tx, secret_id), actor="")

    async def _check_password(
        self, name: str, password: str, policy: Policy, origin: ClientAddress, account: str
    ) -> Principal | None:
        """Return the user if the password is correct.

        Unknown users take the same path, so that the time of the answer reveals nothing.
        """

        def work(tx: Transaction) -> tuple[float | None, str | None]:
            return self._limiter.check(tx, origin, account), users.find_password(tx, name)

        pause, stored = await self._db.read(work)
        user = policy.find_user(name)
        async with self._limiter.turn(origin, pause) as turn:
            right = await self.passwords.verify(password, stored)
            turn.is_right = right and user is not None and not user.disabled
        if not turn.is_right or stored is None or user is None:
            return None
        if self.passwords.is_outdated(stored):
            # The rehash is optional: the next sign-in tries again.
            with contextlib.suppress(DatabaseUnavailableError, TooManyRequestsError):
                better = await self.passwords.hash(password)
                await self._db.write(lambda tx: users.rehash(tx, name, stored, better), actor="")
        return of_user(name, user.generation)

    def _from_id_token(self, token: str, policy: Policy) -> Principal | None:
        """Return the robot of the first rule that the claims of an ID token match."""
        from registry.auth.tokens.issuer import read_issuer  # noqa: PLC0415 - as in `tokens`

        try:
            require_short(token)
        except TokenInvalidError as error:
            raise CredentialsInvalidError(error.message) from error
        made_by = read_issuer(token)
        for issuer in self._oidc:
            if issuer.issuer != made_by:
                continue
            try:
                name = issuer.match(issuer.verify(token))
            except TokenInvalidError as error:
                # Another entry may accept tokens of the same issuer for another audience.
                logger.info("rejected an ID token of %s: %s", made_by, error)
                continue
            robot = policy.find_robot(name) if name is not None else None
            if robot is not None:
                return of_robot(robot.name, robot.generation)
            logger.info("no rule accepts this ID token of %s, or its robot does not exist", made_by)
        return None

    async def start(self) -> None:
        """Start to fetch the keys of external issuers."""
        for issuer in self._external_issuers:
            await issuer.start()

    async def close(self) -> None:
        for issuer in self._external_issuers:
            await issuer.stop()
        self.passwords.close()
