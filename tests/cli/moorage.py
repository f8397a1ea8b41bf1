"""Runner of commands, on a data directory or through the API of a server."""

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.servers import launcher

PASSWORD = "the password of root"  # noqa: S105 - of a test
LONG = "correct horse battery"


@dataclass
class Moorage:
    """Runner of commands. `where` holds the options of the registry, `settings` its environment."""

    folder: Path
    where: list[str]
    settings: dict[str, str] = field(default_factory=dict)

    def run(
        self, *arguments: str, typed: str = "", expect: int = 0
    ) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MOORAGE_")}
        done = launcher.run(
            *arguments, *self.where, typed=typed, env={**kept, **self.settings}, cwd=self.folder
        )
        assert done.returncode == expect, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str, typed: str = "") -> Any:
        return json.loads(self.run(*arguments, "--json", typed=typed).stdout)

    def fails(self, *arguments: str, typed: str = "") -> str:
        """Run a command that must exit with status 1, and return the one line it prints."""
        said = self.run(*arguments, typed=typed, expect=1).stderr
        assert said.startswith("moorage: ")
        assert said.count("\n") == 1
        return said


def at(data: Path) -> Moorage:
    return Moorage(data.parent, ["--data", str(data)])
