"""Command line clients, each with its own environment."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.missing import missing

PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
TIMEOUT = 90.0  # seconds


@dataclass(frozen=True)
class Client:
    """A program to call with arguments: `podman("push", name)` returns what it printed."""

    program: str
    env: Mapping[str, str]

    def __call__(self, *arguments: str, stdin: bytes = b"", **env: str) -> str:
        done = self._run(arguments, stdin, env)
        assert done.returncode == 0, self._told(arguments, done)
        return done.stdout.decode()

    def refused(self, *arguments: str) -> str:
        """Return the error output of a call that must fail."""
        done = self._run(arguments, b"", {})
        assert done.returncode != 0, self._told(arguments, done)
        return done.stderr.decode()

    def _run(
        self, arguments: tuple[str, ...], stdin: bytes, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [self.program, *arguments],
            cwd=self.env["HOME"],
            env={**self.env, **env},
            input=stdin,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )

    def _told(self, arguments: tuple[str, ...], done: subprocess.CompletedProcess[bytes]) -> str:
        said = (done.stdout + done.stderr).decode(errors="replace")
        return f"{' '.join([self.program, *arguments])}: status {done.returncode}\n{said}"


def find_program(name: str, package: str, *, path: str = PATH) -> str:
    return shutil.which(name, path=path) or missing(f"{name} (Debian: apt-get install {package})")


def need_root(what: str) -> None:
    if os.geteuid() != 0:
        missing(f"root for {what}")


def unmount_below(folder: Path) -> None:
    """Unmount file systems that a client left, so that the folder can be deleted."""
    table = Path("/proc/self/mountinfo").read_text()
    points = [line.split()[4] for line in table.splitlines()]
    for point in sorted((p for p in points if Path(p).is_relative_to(folder)), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=True)
