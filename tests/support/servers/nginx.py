"""nginx with the configuration in deploy/nginx, in front of servers of a test."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.missing import missing
from tests.support.servers.postgres import free_port
from tests.support.servers.server import ROOT

SHIPPED = ROOT / "deploy" / "nginx"
START = 30.0
"""Time limit for nginx to listen, in seconds."""

_MAIN = """\
worker_processes 2;
pid nginx.pid;
events {
    worker_connections 2048;
}
http {
    access_log access.log;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include moorage.conf;
    include replicas.conf;
}
"""
_ADDRESS = re.compile(r"listen 443 ssl;")
_TLS = re.compile(r"^ +ssl_.*\n", re.MULTILINE)
_REPLICAS = re.compile(r"^( +server )\S+(.*;)\n(?: +server .*\n)*", re.MULTILINE)


def find_nginx() -> str:
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    return found or missing("nginx (Debian: apt-get install nginx)")


def _replace(pattern: re.Pattern[str], new: str, text: str) -> str:
    changed, count = pattern.subn(new, text)
    assert count, f"deploy/nginx has nothing like {pattern.pattern}"
    return changed


@dataclass
class Nginx:
    """nginx with the shipped configuration; only addresses and files are those of the test.

    `tls` is a certificate and its key. Without it, nginx speaks plain HTTP. The test must set
    `http.trusted_proxies` of the servers to 127.0.0.1.
    """

    folder: Path
    replicas: Sequence[int]
    """Ports of the servers on 127.0.0.1."""
    tls: tuple[Path, Path] | None = None
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def write(self) -> None:
        """Write the configuration files and let nginx check them."""
        self.folder.mkdir(exist_ok=True)
        servers = "".join(rf"\g<1>127.0.0.1:{port}\2\n" for port in self.replicas)
        shipped = (SHIPPED / "replicas.conf").read_text()
        (self.folder / "replicas.conf").write_text(_replace(_REPLICAS, servers, shipped))
        (self.folder / "moorage.conf").write_text(self._site())
        user = "user root;\n" if os.geteuid() == 0 else ""
        (self.folder / "nginx.conf").write_text(user + _MAIN)
        judged = subprocess.run(self._command("-t"), capture_output=True, text=True, check=False)
        assert judged.returncode == 0, judged.stderr
        assert "[warn]" not in judged.stderr, judged.stderr

    def _site(self) -> str:
        site = (SHIPPED / "moorage.conf").read_text()
        listen = f"listen 127.0.0.1:{self.port}"
        if self.tls is None:
            return _replace(_TLS, "", _replace(_ADDRESS, f"{listen};", site))
        for shipped, path in zip(("tls.crt", "tls.key"), self.tls, strict=True):
            site = _replace(re.compile(rf"/etc/nginx/tls/{shipped}"), str(path), site)
        return _replace(_ADDRESS, f"{listen} ssl;", site)

    def _command(self, *options: str) -> list[str]:
        paths = ["-p", str(self.folder), "-c", "nginx.conf", "-e", "error.log"]
        return [find_nginx(), *paths, *options]

    def start(self) -> None:
        """Start nginx and wait until it listens."""
        self.write()
        self.process = subprocess.Popen(
            self._command("-g", "daemon off;"), stdin=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + START
        while not self._listens():
            told = (self.folder / "error.log").read_text()
            assert self.process.poll() is None, told
            assert time.monotonic() < deadline, told
            time.sleep(0.02)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except OSError:
            return False
        return True

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(START)


@contextmanager
def proxying(nginx: Nginx) -> Iterator[Nginx]:
    """Run `nginx` while the block runs."""
    nginx.start()
    try:
        yield nginx
    finally:
        assert nginx.stop() == 0
