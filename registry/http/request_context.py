"""A request to an endpoint of the registry API, and the entries of the route table."""

import re
from collections.abc import Awaitable, Callable, Mapping

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.auth.caller import ALWAYS, Caller, Validity
from registry.auth.policy.actions import Action
from registry.auth.policy.principals import ANONYMOUS, Principal
from registry.errors import (
    BlobUnknownError,
    DeniedError,
    DisabledError,
    ManifestUnknownError,
    MethodUnknownError,
    NameInvalidError,
    PageSizeInvalidError,
)
from registry.http.authorization import Authorizer, find_limited, format_scope
from registry.http.handled import MirrorUse
from registry.http.reuse import SCOPE, Terms
from registry.http.settings import ApiSettings
from registry.http.targets import Targets
from registry.oci.names import RepositoryName
from registry.services.content.settings import ContentSettings
from registry.services.mirrors.mirror import Mirrored
from registry.services.services import Services

_NUMBER = re.compile(r"[0-9]+")
_READS = {"GET", "HEAD"}
_DIGITS = 9
"""The number of digits above which a page size exceeds every cap."""


class RequestContext(Struct, frozen=True):
    """An authorized request."""

    request: Request
    registry: Services
    settings: ApiSettings
    authorizer: Authorizer
    caller: Caller
    repository: RepositoryName | None
    mirrored: Mirrored | None = None
    """The mirrored repository, if the request reads from a mirror."""
    is_by_default: bool = False
    """Whether the request named no mirror. Then the response is not repeated, because it also
    depends on the repository with the name in the path, which may be created."""
    cached: Mirrored | None = None
    """The mirrored repository, if the caller may read only what is cached."""

    @property
    def principal(self) -> Principal:
        return self.caller.principal

    @property
    def name(self) -> RepositoryName:
        """The repository in the path."""
        if self.repository is None:
            raise NameInvalidError("the path has no repository name")
        return self.repository

    @property
    def received_at(self) -> float:
        """The time at which the request arrived, of `time.monotonic`."""
        return float(self.request.scope["moorage.began"])

    def param(self, name: str) -> str:
        """Return a parameter of the path."""
        return str(self.request.path_params[name])

    def query(self, name: str) -> str | None:
        """Return a query parameter.

        Databases reject NUL, so it is replaced by a character that no name in the registry
        contains.
        """
        value = self.request.query_params.get(name)
        return None if value is None else value.replace("\0", "\ufffd")

    @property
    def last(self) -> str:
        """The `last` parameter, after which a list continues, cut before the first NUL.

        The result is the same, because no name sorts between the cut text and the full text.
        """
        return self.request.query_params.get("last", "").partition("\0")[0]

    def page_size(self) -> int:
        """Return `n`, at most the documented cap.

        Raises PageSizeInvalidError if it is not a number.
        """
        text = self.request.query_params.get("n")
        if text is None:
            return self.settings.limits.page_size
        if not _NUMBER.fullmatch(text):
            raise PageSizeInvalidError("n must be a non-negative integer", {"n": text[:80]})
        digits = text.lstrip("0")
        largest = self.settings.limits.max_page_size
        return largest if len(digits) > _DIGITS else min(int(digits or "0"), largest)

    def require_mount(self, source: RepositoryName) -> None:
        """Require a token that covers the source of a mount, if the caller could get one."""
        if not self.caller.may_pull(source) and self.caller.could_pull(source):
            scopes = [format_scope(Action.PUSH, self.name), format_scope(Action.PULL, source)]
            raise self.authorizer.demand(self.request, self.caller, scopes)

    def note_mirror_use(self, kind: str, result: str) -> None:
        """Record for the metrics what the request gets from a mirror, if it asks one."""
        if self.mirrored is not None:
            use = MirrorUse(self.mirrored.mirror.name, kind, result)
            self.request.scope["moorage.mirror"] = use

    def allow_reuse(
        self, note: Callable[[], None] | None = None, validity: Validity = ALWAYS
    ) -> None:
        """Let the server repeat the response to the same request.

        For as long as `validity` says, the response may depend only on the request, the settings,
        the caller, the policy, and what the change feed records of the repository. `note` is called
        for each repetition.
        """
        reuse = self.request.scope.get(SCOPE) if not self.is_by_default else None
        own = self.caller.validity
        if reuse is not None and own is not None:
            limits, principal = self.authorizer.limits, find_limited(self.caller)
            client = self.request.client
            reuse.terms = Terms(
                self.repository,
                own if validity is ALWAYS else own.limited_to(validity),
                client.host if client else None,
                limits.admission_of(principal),
                note,
            )

    def check_upload(self) -> None:
        """Count the start of an upload; raise TooManyRequestsError."""
        client = self.request.client
        address = client.host if client else None
        self.authorizer.limits.check_upload(address, find_limited(self.caller))


Handler = Callable[[RequestContext], Awaitable[Response | ASGIApp]]


class Entry(Struct, frozen=True):
    """A path of the route table with the action and the handler of each method."""

    path: str
    methods: Mapping[str, tuple[Action, Handler]]


class Endpoint:
    """The ASGI application of one entry. This is the only place that checks permissions."""

    def __init__(
        self, entry: Entry, registry: Services, settings: ApiSettings, authorizer: Authorizer
    ) -> None:
        self._entry = entry
        self._registry = registry
        self._settings = settings
        self._authorizer = authorizer
        self._targets = Targets(registry.mirror_lookup, authorizer.sites)
        off = _list_switched_off(settings.content)
        self._off = {
            method: off[action]
            for method, (action, _) in entry.methods.items()
            if action in off and method not in _READS
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["moorage.route"] = self._entry.path
        request = Request(scope, receive, send)
        if request.method not in self._entry.methods:
            raise MethodUnknownError(sorted(self._entry.methods))
        action, handler = self._entry.methods[request.method]
        target = await self._targets.find(request, action)
        repository, mirrors = target.repository, target.mirrors
        caller = await self._authorizer.admit(request, action, *target.names)
        scope["moorage.principal"] = caller.principal.name
        if request.method in self._off:
            left = sorted(self._entry.methods.keys() - self._off.keys())
            raise DisabledError(self._off[request.method], left)
        mirrored = default = target.find_default(caller)
        if default is not None:
            repository = default.name
        elif repository is not None and mirrors:
            if action is Action.PUSH and mirrors.contains(repository):
                raise _refuse_push(repository)
            mirrored = mirrors.find(repository) if action is Action.PULL else None
        cached = None
        if mirrored is not None and not _may_fill(caller, mirrored):
            mirrored, cached = None, mirrored
        response = await _handle(
            handler,
            RequestContext(
                request,
                self._registry,
                self._settings,
                self._authorizer,
                caller,
                repository,
                mirrored,
                default is not None,
                cached,
            ),
        )
        if target.namespace and isinstance(response, Response):
            response.headers["OCI-Namespace"] = target.namespace
        await response(scope, receive, send)


def _may_fill(caller: Caller, at: Mirrored) -> bool:
    """Return whether a pull of the caller may fetch content from the upstream."""
    return not at.mirror.has_credentials or caller.may_fill(at.name)


async def _handle(handler: Handler, context: RequestContext) -> Response | ASGIApp:
    """Run the handler. A caller without `fill` who misses something is told so.

    An anonymous caller is asked to sign in, because another caller may have `fill`.
    """
    try:
        return await handler(context)
    except (BlobUnknownError, ManifestUnknownError) as error:
        if context.cached is None:
            raise
        if context.principal == ANONYMOUS:
            scope = format_scope(Action.PULL, context.name)
            raise context.authorizer.demand(context.request, context.caller, [scope]) from error
        raise type(error)(
            f"{error.message}; to fetch it requires fill on {context.name}; ask an admin of this "
            f"registry or of {context.name} to grant it",
            error.detail,
        ) from error


def _refuse_push(name: RepositoryName) -> DeniedError:
    return DeniedError(
        f"{name} belongs to a mirror, which only its upstream changes; push to a repository with "
        "another prefix",
        {"action": Action.PUSH.value},
    )


def _list_switched_off(settings: ContentSettings) -> dict[Action, str]:
    """Return the write actions that the settings disable, each with the reason."""
    if settings.read_only:
        reason = "the registry is read-only (content.read_only)"
        return dict.fromkeys((Action.PUSH, Action.DELETE), reason)
    if not settings.allow_delete:
        return {Action.DELETE: "deletion is disabled (content.allow_delete = false)"}
    return {}
