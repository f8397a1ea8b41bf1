"""Checks across several settings."""

from collections.abc import Callable, Iterator
from dataclasses import fields

from registry.auth.policy.subjects import parse_user_name
from registry.auth.settings import LONGEST_PASSWORD, SHORTEST_PASSWORD, TLS_REMEDY, AuthSettings
from registry.client.settings import UpstreamSettings
from registry.config.tree import Settings, StoreSettings
from registry.errors import AccountNameInvalidError, ConfigError
from registry.http.settings import HttpSettings

MIN_SECRET_LENGTH = 32


def require_safe_listen(settings: Settings, has_users: Callable[[], bool]) -> None:
    """Raise ConfigError if the registry would be open to other machines without any user.

    Nobody could sign in, or other machines could push without signing in. The check passes if
    `auth.mode = "none"` allows this, an external issuer is set, or `serve` adds an admin.
    """
    auth = settings.auth
    if auth.is_open or auth.has_external_issuer or auth.admin_password:
        return
    if settings.http.is_local or has_users():
        return
    hide = f"To protect passwords in transit, {TLS_REMEDY}.\n"
    raise ConfigError(
        f'http.listen = "{settings.http.listen}" accepts connections from other machines, but there'
        " are no users who could sign in. Run these two commands:\n"
        f"  moorage user add NAME --admin --data {settings.data}\n"
        f"  moorage serve --listen {settings.http.listen} --data {settings.data}\n"
        "Without a terminal, let serve add the first admin: put the password into a file, and set"
        " MOORAGE_AUTH__ADMIN_PASSWORD_FILE to its path.\n"
        f"{hide if sends_passwords_in_clear(settings) else ''}"
        'To allow everybody to push without signing in, set auth.mode = "none" in the settings'
        " file, or MOORAGE_AUTH__MODE=none in the environment."
    )


def sends_passwords_in_clear(settings: Settings) -> bool:
    """Return whether other machines sign in and no setting indicates that they use TLS."""
    http = settings.http
    return (
        not settings.auth.is_open
        and not http.is_local
        and not http.tls_cert
        and not http.trusted_proxies
        and not http.external_url.startswith("https:")
    )


def list_conflicts(settings: Settings) -> Iterator[str]:
    """Yield a message for each combination of settings that cannot be used."""
    if settings.storage.driver == "memory" and settings.http.workers > 1:
        yield (
            'storage.driver = "memory" keeps blobs in a single process: set http.workers = 1'
            f" instead of {settings.http.workers}"
        )
    yield from _bucket_conflicts("storage", settings.storage)
    yield from _old_storage_conflicts(settings)
    yield from _listener_conflicts(settings.http)
    if settings.auth.secret and len(settings.auth.secret) < MIN_SECRET_LENGTH:
        yield (
            f"auth.secret must have at least {MIN_SECRET_LENGTH} characters; create one with: "
            "openssl rand -hex 32"
        )
    yield from _first_admin_conflicts(settings.auth)
    yield from _issuer_conflicts(settings.auth)
    yield from _upstream_conflicts(settings.upstream)
    limits = settings.limits
    if limits.page_size > limits.max_page_size:
        yield (
            f"limits.page_size = {limits.page_size} must not exceed"
            f" limits.max_page_size = {limits.max_page_size}"
        )


def _listener_conflicts(http: HttpSettings) -> Iterator[str]:
    if bool(http.tls_cert) != bool(http.tls_key):
        there, missing = ("tls_cert", "tls_key") if http.tls_cert else ("tls_key", "tls_cert")
        yield f"http.{there} requires http.{missing}: set both or neither"
    elif http.tls_client_ca and not http.tls_cert:
        yield "http.tls_client_ca requires http.tls_cert and http.tls_key: set all three"
    if http.ops_listen and http.ops_listen == http.listen:
        yield "http.ops_listen must be a different address from http.listen"


def _first_admin_conflicts(auth: AuthSettings) -> Iterator[str]:
    try:
        parse_user_name(auth.admin_user)
    except AccountNameInvalidError as error:
        yield f"auth.admin_user: {error.message}"
    if not auth.admin_password:
        return
    if not SHORTEST_PASSWORD <= len(auth.admin_password) <= LONGEST_PASSWORD:
        yield f"auth.admin_password must have {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters"
    if auth.is_open or not auth.local_users:
        why = 'auth.mode = "none"' if auth.is_open else "auth.local_users = false"
        yield f"auth.admin_password cannot be used with {why}: remove one of them"


def _bucket_conflicts(section: str, store: StoreSettings) -> Iterator[str]:
    if store.driver == "s3" and not store.bucket:
        yield f'{section}.driver = "s3" requires {section}.bucket'
    if store.driver != "s3" and store.bucket:
        yield f'{section}.bucket requires {section}.driver = "s3"'
    if store.driver != "s3" and store.redirect:
        yield f'{section}.redirect requires {section}.driver = "s3"'
    if store.redirect_endpoint and not store.redirect:
        yield f"{section}.redirect_endpoint requires {section}.redirect = true"
    if bool(store.access_key) != bool(store.secret_key):
        there, missing = (
            ("access_key", "secret_key") if store.access_key else ("secret_key", "access_key")
        )
        yield f"{section}.{there} requires {section}.{missing}: set both or neither"


def _old_storage_conflicts(settings: Settings) -> Iterator[str]:
    new, old = settings.storage, settings.old_storage
    if not old.driver:
        for each in fields(old):
            if getattr(old, each.name) != each.default:
                yield f"old_storage.{each.name} requires old_storage.driver"
        return
    yield from _bucket_conflicts("old_storage", old)
    if old.store_name == new.store_name:
        yield (
            f'storage and old_storage have the same name "{new.store_name}": rename the new store, '
            f'for example storage.name = "{new.store_name}-2", and keep the name of the old one'
        )
    if _location(settings, old) == _location(settings, new):
        yield "storage and old_storage are the same location, so no blob can be moved"


def _location(settings: Settings, store: StoreSettings) -> tuple[str, ...]:
    """Return a key that is equal for two stores at the same location."""
    if store.driver == "s3":
        return "s3", store.endpoint, store.bucket, store.prefix.strip("/")
    return store.driver, str(settings.find_root(store).resolve())


def _upstream_conflicts(upstream: UpstreamSettings) -> Iterator[str]:
    if upstream.url.startswith("http:") and not upstream.allow_private_addresses:
        yield (
            f'upstream.url = "{upstream.url}" must be https; for a private address, set'
            " upstream.allow_private_addresses = true"
        )
    if bool(upstream.username) != bool(upstream.password):
        yield "upstream.username and upstream.password require each other: set both or neither"
    if upstream.username and upstream.credential_helper:
        yield "upstream.username and upstream.credential_helper cannot both be set: remove one"
    if "*" in upstream.token_origins:
        yield "upstream.token_origins must list the origins of token servers instead of *"
    if not upstream.url and upstream != UpstreamSettings():
        yield "[upstream] requires upstream.url"


def _issuer_conflicts(auth: AuthSettings) -> Iterator[str]:
    has_keys = auth.has_external_issuer
    if auth.jwks_url and auth.jwks_file:
        yield "auth.jwks_url and auth.jwks_file cannot both be set: remove one of them"
    for name, value in (("issuer", auth.issuer), ("audience", auth.audience)):
        if has_keys and not value:
            yield f"auth.jwks_url and auth.jwks_file require auth.{name}"
        elif value and not has_keys:
            yield f"auth.{name} requires auth.jwks_url or auth.jwks_file"
    if has_keys and auth.issuer == auth.service:
        yield (
            "auth.issuer is the name of this registry itself: set auth.service to a different name"
        )
    if auth.realm and not has_keys:
        yield "auth.realm requires auth.jwks_url or auth.jwks_file"
    if not auth.local_users:
        yield from _external_only_conflicts(auth)
    for name, url in _list_key_urls(auth):
        if url.startswith("http:") and not auth.allow_private_addresses:
            yield (
                f'{name} = "{url}" must be https; for a private address, set'
                " auth.allow_private_addresses = true"
            )


def _external_only_conflicts(auth: AuthSettings) -> Iterator[str]:
    if not (auth.realm and auth.has_external_issuer):
        yield (
            "auth.local_users = false requires an external issuer: set auth.issuer, auth.audience,"
            " auth.realm, and auth.jwks_url or auth.jwks_file"
        )
    if auth.oidc:
        yield (
            "auth.oidc requires robots, which auth.local_users = false excludes: remove one of them"
        )


def _list_key_urls(auth: AuthSettings) -> Iterator[tuple[str, str]]:
    yield "auth.jwks_url", auth.jwks_url
    for index, oidc in enumerate(auth.oidc):
        yield f"auth.oidc[{index}].issuer", oidc.issuer
        yield f"auth.oidc[{index}].jwks_url", oidc.jwks_url
