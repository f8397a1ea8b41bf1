"""Registries for backup and restore tests, each with its own data directory and stores."""

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from registry import logs
from registry.app import compose, open_runtime
from registry.app.asgi import create_app
from registry.cli.main import main
from registry.config import Settings, load
from registry.errors import SchemaError
from registry.metadata.engine import migrate
from registry.metadata.engine.database import Database
from tests.api.conftest import Api, in_process
from tests.services.migration.conftest import as_variables
from tests.support.accounts import SECRET

PASSPHRASE = "correct horse battery"  # noqa: S105 - of tests


@dataclass
class Place:
    """The location and settings of a registry, which may not exist yet."""

    data: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return as_variables(self.settings)

    def load(self) -> Settings:
        overrides = {"jobs.in_serve": "false", **self.settings}
        return load(config=None, data=self.data, overrides=overrides, environ={})

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Api]:
        """Yield the application, run in this process without jobs."""
        self.data.mkdir(exist_ok=True)
        (self.data / "lock").touch()
        settings = self.load()
        if Database.is_embedded(settings.database_url) and not (self.data / "moorage.db").exists():
            migrate.upgrade(settings.database_url)
        opened = compose(settings)
        async with in_process(create_app(settings, opened)) as http:
            yield Api(http, opened, settings)

    async def require_closed(self) -> None:
        """Check that no server starts from this registry."""
        with pytest.raises(SchemaError, match="run moorage backup restore again"):
            async with open_runtime(self.load()):
                pass

    async def run(
        self, verb: str, target: Path, *options: str, expect: int = 0, passphrase: str = ""
    ) -> str:
        """Run a backup command as a shell does, and return its whole output."""
        variables = self.environment | {"MOORAGE_BACKUP_PASSPHRASE": passphrase}
        line = ["backup", verb, str(target), "--data", str(self.data), *options]
        written = io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            for name, text in variables.items():
                patch.setenv(name, text)
            with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written):
                status = await asyncio.to_thread(main, line)
        assert status == expect, written.getvalue()
        return written.getvalue()

    async def ask(self, verb: str, target: Path, *options: str, **more: Any) -> Any:
        """Run a backup command with `--json` and return the decoded JSON.

        The result leaves out hints and error messages.
        """
        told = await self.run(verb, target, "--json", *options, **more)
        return json.JSONDecoder().raw_decode(told)[0]


@pytest.fixture(autouse=True)
def quiet_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevent commands from reconfiguring the logs of the test process."""
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)


Make = Callable[..., Place]


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Yield a factory of registries, of kinds from `sqlite-local` to `postgres-s3`."""
    with contextlib.ExitStack() as stack:

        def one(
            name: str, kind: str = "sqlite-local", *, bare: bool = False, **settings: str
        ) -> Place:
            """Return a new registry. With `bare`, the database has no schema yet."""
            database, store = kind.split("-")
            found = {"auth.secret": SECRET, "storage.min_free_space": "0B"}
            if database == "postgres":
                cluster = request.getfixturevalue("postgres")
                found["database.url"] = stack.enter_context(cluster.database(empty=bare))
            if store == "s3":
                bucket = request.getfixturevalue("seaweed").bucket()
                found |= {"storage.driver": "s3", "storage.part_size": "5MiB"}
                found |= bucket.overrides()
            more = {key.replace("__", "."): text for key, text in settings.items()}
            place = Place(tmp_path / name, found | more)
            if database == "postgres":
                place.settings["auth.mode"] = more.get("auth.mode", "none")
            return place

        yield one


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"
