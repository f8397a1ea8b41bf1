"""Authentication of the admin API, and its protection against cross-site requests."""

from starlette.requests import Request

from registry.auth.caller import Caller
from registry.auth.client_address import ClientAddress
from registry.auth.credentials.secrets import find_secret
from registry.auth.policy.subjects import ROBOT_SIGN_IN
from registry.errors import CredentialsInvalidError, DeniedError, UnauthorizedError
from registry.http.authorization import Authorizer, Basic, Token, find_origin, read_credentials


class AdminAuthenticator:
    """Authenticates callers by password, or by a secret of this registry."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer
        self._auth = authorizer.auth

    async def admit(self, request: Request) -> Caller:
        """Return the caller; raise UnauthorizedError, DeniedError or TooManyRequestsError."""
        origin = find_origin(request)
        self._authorizer.limits.check_request(origin.address or None, None)
        self._authorizer.sites.require_own_page(request)
        if await self._auth.find_open() is not None:
            raise DeniedError(
                "this registry has no accounts, so it cannot be administered over HTTP; on the "
                "machine that has its data, run: moorage user add NAME --admin, and remove "
                'auth.mode = "none"'
            )
        self._authorizer.warn_if_readable(request)
        try:
            caller = await self._identify(request, origin)
        except CredentialsInvalidError as error:
            challenge = f'Basic realm="{self._auth.rules.service}"'
            raise UnauthorizedError(error.message, challenge) from error
        if caller.has_refresh_token:
            raise DeniedError(
                "a refresh token of docker login cannot be used here; use the password or a "
                "personal access token"
            )
        self._authorizer.limits.check_request(None, caller.principal.name)
        return caller

    async def _identify(self, request: Request, origin: ClientAddress) -> Caller:
        match read_credentials(request):
            case Basic(name, password):
                return await self._auth.authenticate_password(name, password, origin)
            case Token(text):
                name = await self._find_owner(text, origin)
                return await self._auth.authenticate_password(name, text, origin)
            case _:
                raise CredentialsInvalidError("sign in with a password or a token")

    async def _find_owner(self, text: str, origin: ClientAddress) -> str:
        """Return the user name of a secret; raise CredentialsInvalidError."""
        secret = find_secret(text)
        policy = await self._auth.policies.get()
        row = policy.find_secret(secret.id) if secret else None
        if row is None:
            raise await self._auth.record_failure("", origin)
        return row.user or f"{ROBOT_SIGN_IN}{row.robot}"
