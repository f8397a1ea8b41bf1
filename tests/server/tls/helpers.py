"""Helpers of the tests of this folder."""

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from tests.support.servers.certificates import Authority
from tests.support.servers.server import Server

SOON = 10.0
"""Time limit for the reload of changed files, in seconds. The server checks every second."""


def trusting(*authorities: Authority, shown: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """Return a TLS context of a client; `shown` is its certificate and key."""
    context = ssl.create_default_context(cadata=b"".join(a.bundle for a in authorities).decode())
    if shown:
        context.load_cert_chain(*shown)
    return context


@dataclass
class TlsServer(Server):
    """A server with a certificate of `authority` in its data directory."""

    authority: Authority = field(default_factory=Authority)
    client_authority: Authority | None = None

    def __post_init__(self) -> None:
        self.data.mkdir()
        self.install(self.authority)
        self.settings = {
            "MOORAGE_HTTP__TLS_CERT": "server.crt",
            "MOORAGE_HTTP__TLS_KEY": "server.key",
            **self.settings,
        }
        if self.client_authority:
            (self.data / "clients.pem").write_bytes(self.client_authority.bundle)
            self.settings["MOORAGE_HTTP__TLS_CLIENT_CA"] = "clients.pem"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def cert(self) -> Path:
        return self.data / "server.crt"

    @property
    def key(self) -> Path:
        return self.data / "server.key"

    def install(self, authority: Authority) -> None:
        """Replace the certificate of the server by a new one of `authority`."""
        for issued, path in zip(self.issue(authority), (self.cert, self.key), strict=True):
            issued.replace(path)

    def issue(self, authority: Authority) -> tuple[Path, Path]:
        folder = self.data.parent / "issued"
        folder.mkdir(exist_ok=True)
        return authority.issue(folder, "127.0.0.1", "localhost")

    def _answers(self) -> bool:
        try:
            return bool(self.serial())
        except OSError:
            return False

    def said(self) -> str:
        return self.log.read_text()

    def serial(self) -> int:
        """Return the serial number of the certificate that a new connection gets."""
        pem = ssl.get_server_certificate(("127.0.0.1", self.port), timeout=5)
        return x509.load_pem_x509_certificate(pem.encode()).serial_number


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def serial_in(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number
