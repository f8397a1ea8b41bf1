"""TLS: the certificate comes from files, and again from them when they change."""

import asyncio
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

from registry.config import Settings
from registry.errors import ConfigError

logger = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds between two looks at the files."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files; with `client_ca`, clients must show a certificate of an authority in it."""

    certificate: Path
    key: Path
    client_ca: Path | None

    @property
    def paths(self) -> list[Path]:
        """All there are."""
        return [path for path in (self.certificate, self.key, self.client_ca) if path]


class TlsContext(ssl.SSLContext):
    """Begins each connection with what the files said when they were last good."""

    def __new__(cls, files: TlsFiles) -> Self:
        del files
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, files: TlsFiles) -> None:
        """ConfigError if the files cannot be used."""
        self._files = files
        self._seen = _identify(files)
        self._current = _load(files)

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """What a transport calls when it takes a connection."""
        # Unlike a callback for the server's name, which changes the certificate alone, this also
        # leaves no way to resume a session that former authorities let in.
        return self._current.wrap_bio(*args, **options)

    async def watch(self) -> NoReturn:
        """Look at the files for ever."""
        while True:
            await asyncio.to_thread(self.refresh)
            await asyncio.sleep(PAUSE)

    def refresh(self) -> None:
        """Take changed files, or keep what there is and log why."""
        found = _identify(self._files)
        if found == self._seen:
            return
        self._seen = found  # from before they are read: a change meanwhile is seen next time
        try:
            self._current = _load(self._files)
        except ConfigError as error:
            logger.error("the former certificate stays in use: %s", error)  # noqa: TRY400 - expected
        else:
            logger.info("new connections use the new certificate in %s", self._files.certificate)


def load_tls(settings: Settings) -> TlsContext | None:
    """Return the certificate to serve with, None if there is to be none; ConfigError."""
    http, data = settings.http, settings.data
    if not http.tls_cert:
        return None
    client_ca = data / http.tls_client_ca if http.tls_client_ca else None
    return TlsContext(TlsFiles(data / http.tls_cert, data / http.tls_key, client_ca))


def _identify(files: TlsFiles) -> list[tuple[int, ...]]:
    """What differs when a file was written, replaced or removed."""
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
    """A context of the files; ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # the default since OpenSSL 3 alone
    try:
        for path in files.paths:
            path.read_bytes()  # only here does an error say which file it is
        # Without a password given, OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(files.certificate, files.key, password="")
        if files.client_ca:
            context.load_verify_locations(files.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except ssl.SSLError as error:
        raise ConfigError(_explain(files, error.reason)) from error
    except OSError as error:
        raise ConfigError(
            f"the file {error.filename} cannot be read ({error.strerror});"
            " check http.tls_cert, http.tls_key and http.tls_client_ca, and who may read the files"
        ) from error
    return context


def _explain(files: TlsFiles, reason: str | None) -> str:
    if reason == "NO_CERTIFICATE_OR_CRL_FOUND":
        return f"http.tls_client_ca, {files.client_ca}, must hold certificates in PEM"
    if reason == "KEY_VALUES_MISMATCH":
        return (
            f"http.tls_key, {files.key}, is not the key of http.tls_cert, {files.certificate};"
            " name a certificate and a key that belong together"
        )
    return (
        f"http.tls_cert, {files.certificate}, must hold a certificate in PEM,"
        f" and http.tls_key, {files.key}, its key in PEM without a password"
    )
