"""Copies while clients use the registry."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from registry.app import compose, export_private_keys
from registry.app.asgi import create_app
from registry.config import load
from registry.errors import (
    ConfigError,
)
from registry.metadata.content import repositories
from registry.metadata.engine import write_freeze
from registry.metadata.engine.database import parse_url
from registry.metadata.maintenance import database_copy
from registry.oci.names import RepositoryName
from registry.services.maintenance.database_transfer import Transfer
from tests.api.conftest import Api, in_process
from tests.services.migration.db_copy.helpers import (
    _TYPE,
    NAME,
    both_ways,
    no_keys,
    opened,
)
from tests.support.accounts import AUTH, Accounts, bearer, get_token, signed
from tests.support.kit import codes

pytestmark = pytest.mark.anyio


# Copies while clients use the registry.


@asynccontextmanager
async def serving(url: str, data: Path) -> Any:
    overrides = {"database.url": url, "storage.root": str(data / "storage"), **AUTH}
    settings = load(config=None, data=data, overrides=overrides, environ={})
    registry = compose(settings)
    async with in_process(create_app(settings, registry)) as http:
        yield Api(http, registry, settings)


Serving = Callable[[str, Path], AbstractAsyncContextManager[Api]]


@both_ways
async def test_reads_go_on_and_changes_wait(
    urls: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = urls
    reached, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    fill_in = database_copy._set_counters

    def halt(*arguments: Any) -> None:
        loop.call_soon_threadsafe(reached.set)
        assert go_on.wait(60)
        fill_in(*arguments)

    monkeypatch.setattr(database_copy, "_set_counters", halt)
    async with serving(source, tmp_path) as api:
        accounts = Accounts.of(api.opened)
        robot = await accounts.robot("ci")
        user = await accounts.user("ann", admin=True)
        await accounts.grant("robot:ci", "team/**", "pull,push")
        mine = signed(api.http, robot.basic)
        digest, raw = await mine.push_image(NAME, "v1")

        async def work() -> dict[str, int]:
            return await Transfer(api.opened.database).run(
                target,
                lambda: export_private_keys(api.settings, api.opened, target),
                keep=False,
                tell=lambda *_: None,
            )

        copying_task = asyncio.create_task(work())
        await reached.wait()
        token = ""
        for _ in range(2):  # during the freeze, and after it
            token = await get_token(api.http, robot, f"repository:{NAME}:pull")
            answer = await api.http.get(f"/v2/{NAME}/manifests/v1", headers=bearer(token))
            assert (answer.status_code, answer.content) == (200, raw)
            answer = await mine.http.get(f"/v2/{NAME}/tags/list")
            assert answer.json()["tags"] == ["v1"]
            for method, path in (
                ("PUT", f"/v2/{NAME}/manifests/v2"),
                ("POST", f"/v2/{NAME}/blobs/uploads/"),
            ):
                answer = await mine.http.request(
                    method, path, content=raw, headers={"Content-Type": _TYPE}
                )
                assert (answer.status_code, codes(answer)) == (503, ["UNAVAILABLE"])
                assert "Retry-After" in answer.headers
            go_on.set()
            await copying_task
    async with serving(target, tmp_path) as api:
        for login in (robot, user):
            mine = signed(api.http, login.basic)
            answer = await mine.http.get(f"/v2/{NAME}/manifests/v1")
            assert (answer.status_code, answer.content) == (200, raw)
        # A token signed before the move is still valid.
        for each in (token, await get_token(api.http, robot, f"repository:{NAME}:pull")):
            answer = await api.http.get(f"/v2/{NAME}/manifests/{digest}", headers=bearer(each))
            assert answer.status_code == 200, answer.text
        await signed(api.http, robot.basic).push_image(NAME, "v2", "two")


@pytest.mark.parametrize("urls", ["sqlite-postgres"], indirect=True)
async def test_keys_need_a_secret_where_replicas_share_them(
    urls: tuple[str, str], tmp_path: Path
) -> None:
    source, target = urls
    async with serving(source, tmp_path) as api:
        await Accounts.of(api.opened).user("ann")
        settings = load(config=None, data=tmp_path, overrides={"database.url": source}, environ={})
        with pytest.raises(ConfigError, match=r"auth\.secret"):
            await Transfer(api.opened.database).run(
                target,
                lambda: export_private_keys(settings, api.opened, target),
                keep=False,
                tell=lambda *_: None,
            )
        await Accounts.of(api.opened).user("bob")  # the source takes changes again


@pytest.mark.parametrize("urls", ["postgres-sqlite"], indirect=True)
async def test_keys_of_another_registry_are_not_taken_for_ours(
    urls: tuple[str, str], tmp_path: Path
) -> None:
    source, target = urls
    async with serving(source, tmp_path) as api:
        await Accounts.of(api.opened).robot("ci")
        (tmp_path / "keys").mkdir(mode=0o700)
        other = tmp_path / "keys" / "secrets"
        other.write_bytes(b"of another registry")
        other.chmod(0o600)
        with pytest.raises(ConfigError, match="another registry"):
            await export_private_keys(api.settings, api.opened, target)


@pytest.mark.parametrize("urls", ["postgres-sqlite"], indirect=True)
async def test_readers_are_not_kept_out_and_nothing_is_left_behind(
    urls: tuple[str, str],
) -> None:
    """The freeze does not wait for a reader that holds one long transaction over all tables."""
    source, target = urls
    engine = sa.create_engine(parse_url(source), poolclass=sa.NullPool)
    async with opened(source) as database:
        with engine.connect() as reading:
            for table in database_copy.list_tables():
                reading.execute(sa.select(table).limit(1))
            await database.write(lambda tx: write_freeze.freeze(tx, "t", "place", 0), actor="")
            assert len(await database.read(write_freeze.list_guarded)) > 20
        await Transfer(database).run(target, no_keys, keep=True, tell=lambda *_: None)
        assert await database.read(write_freeze.list_guarded) == []
        await database.write(
            lambda tx: repositories.ensure(tx, RepositoryName("another")), actor="ann"
        )
