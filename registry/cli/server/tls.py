"""TLS certificates from files, reloaded when the files change."""

import asyncio
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

from registry.config import Settings
from registry.errors import ConfigError

logger = logging.getLogger(__name__)

PAUSE_S = 1.0
"""Interval between two checks of the files, in seconds."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. With `client_ca`, clients must present a certificate of an authority in it."""

    certificate: Path
    key: Path
    client_ca: Path | None

    @property
    def paths(self) -> list[Path]:
        """Paths of all files."""
        return [path for path in (self.certificate, self.key, self.client_ca) if path]


class TlsContext(ssl.SSLContext):
    """TLS context that starts each connection with the last valid content of the files."""

    def __new__(cls, files: TlsFiles) -> Self:
        del files
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, files: TlsFiles) -> None:
        """Load the files. Raises ConfigError if they cannot be used."""
        self._files = files
        self._seen = _identify(files)
        self._current = _load(files)

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """Return the TLS object of a new connection. Called by the transport."""
        # A callback for the server name could change only the certificate. A new context also
        # prevents the resumption of sessions that removed authorities had admitted.
        return self._current.wrap_bio(*args, **options)

    async def watch(self) -> NoReturn:
        """Check the files for changes forever."""
        while True:
            await asyncio.to_thread(self.refresh)
            await asyncio.sleep(PAUSE_S)

    def refresh(self) -> None:
        """Load changed files. If they are invalid, keep the current ones and log the error."""
        found = _identify(self._files)
        if found == self._seen:
            return
        self._seen = found  # taken before the files are read, so that no later change is missed
        try:
            self._current = _load(self._files)
        except ConfigError as error:
            logger.error("the previous certificate stays in use: %s", error)  # noqa: TRY400 - expected
        else:
            logger.info("new connections use the new certificate in %s", self._files.certificate)


def load_tls(settings: Settings) -> TlsContext | None:
    """Return the TLS context of the server, or None without TLS.

    Raises ConfigError if the files cannot be used.
    """
    http, data = settings.http, settings.data
    if not http.tls_cert:
        return None
    client_ca = data / http.tls_client_ca if http.tls_client_ca else None
    return TlsContext(TlsFiles(data / http.tls_cert, data / http.tls_key, client_ca))


def _identify(files: TlsFiles) -> list[tuple[int, ...]]:
    """Return values that change when a file is written, replaced or removed."""
    found: list[tuple[int, ...]] = []
    for path in files.paths:
        try:
            now = path.stat()
        except OSError:
            found.append(())
        else:
            found.append((now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns))
    return found


def _load(files: TlsFiles) -> ssl.SSLContext:
    """Return a TLS context with the files. Raises ConfigError if they cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # the default only since OpenSSL 3
    try:
        for path in files.paths:
            path.read_bytes()  # errors of the ssl module do not name the file
        # Without a password argument, OpenSSL would ask on the terminal for that of the key.
        context.load_cert_chain(files.certificate, files.key, password="")
        if files.client_ca:
            context.load_verify_locations(files.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except ssl.SSLError as error:
        raise ConfigError(_explain(files, error.reason)) from error
    except OSError as error:
        raise ConfigError(
            f"the file {error.filename} cannot be read ({error.strerror}); check http.tls_cert,"
            " http.tls_key and http.tls_client_ca, and the permissions of the files"
        ) from error
    return context


def _explain(files: TlsFiles, reason: str | None) -> str:
    if reason == "NO_CERTIFICATE_OR_CRL_FOUND":
        return f"http.tls_client_ca, {files.client_ca}, must contain certificates in PEM"
    if reason == "KEY_VALUES_MISMATCH":
        return (
            f"http.tls_key, {files.key}, is not the key of http.tls_cert, {files.certificate};"
            " use a certificate and a key that belong together"
        )
    return (
        f"http.tls_cert, {files.certificate}, must contain a certificate in PEM,"
        f" and http.tls_key, {files.key}, its key in PEM without a password"
    )
