"""The catalogue does not reveal hidden repositories."""

import itertools
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from registry.metadata.content import repositories
from registry.metadata.engine.transaction import Transaction
from registry.oci.names import RepositoryName
from tests.api.access.hidden.scene import (
    BLOB,
    MINE,
    SQLITE,
    Scene,
)
from tests.support.accounts import (
    ANONYMOUS,
    bearer,
    get_token,
    signed,
)

pytestmark = pytest.mark.anyio


async def walk(http: httpx.AsyncClient, headers: dict[str, str], path: str) -> list[list[str]]:
    pages = []
    while path:
        answer = await http.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        pages.append(list(answer.json()["repositories"]))
        link = answer.headers.get("Link", "")
        path = link[1 : link.index(">")] if link else ""
    return pages


async def test_the_catalogue_leaves_no_gaps(scene: Scene) -> None:
    """The sizes of pages and the links are the same as without the hidden repositories."""
    root = signed(scene.http, scene.root.basic)
    hidden = [f"{prefix}/{kind}" for prefix in "amz" for kind in ("a", "b", "c", "d")]
    for name in hidden:
        await root.push_blob(name, BLOB)
    shown = [MINE]
    for name in ("mine/b", "mine/z", "public/a", "public/z"):
        await root.push_blob(name, BLOB)
        shown.append(name)
    await scene.accounts.grant("anonymous", "public/*", "pull")
    catalogue = "registry:catalog:*"
    tokens = {
        who.name: bearer(await get_token(scene.http, who, catalogue))
        for who in (scene.bob, ANONYMOUS)
    }
    for headers, names in (
        (tokens["bob"], shown),
        (scene.bob.basic, shown),
        (tokens[""], ["public/a", "public/z"]),
    ):
        for n, last in itertools.product((1, 2, 3, 50), ["", *hidden[::3], "mine/b", "zz", "n"]):
            left = [name for name in names if name > last]
            expected = [left[start : start + n] for start in range(0, len(left), n)] or [[]]
            query = f"/v2/_catalog?n={n}" + (f"&last={last}" if last else "")
            assert await walk(scene.http, headers, query) == expected, (n, last)


@SQLITE
async def test_the_catalogue_asks_no_more_of_the_database_for_what_is_hidden(scene: Scene) -> None:
    """Otherwise the response time would reveal how many hidden repositories exist."""
    catalogue = bearer(await get_token(scene.http, scene.bob, "registry:catalog:*"))
    database = scene.api.opened.database
    asked: list[tuple[str, str]] = []

    def note(*args: Any) -> None:
        asked.append((str(args[2]), str(args[3])))

    async def ask(headers: dict[str, str]) -> list[tuple[str, str]]:
        del asked[:]
        answer = await scene.http.get("/v2/_catalog?n=5", headers=headers)
        assert answer.json() == {"repositories": [MINE]}
        return [each for each in asked if "repositories" in each[0]]

    callers = (scene.bob.basic, catalogue)
    sa.event.listen(database._reader, "before_cursor_execute", note)
    before = [await ask(headers) for headers in callers]

    def hide(tx: Transaction) -> None:
        for number in range(1100):
            repositories.ensure(tx, RepositoryName(f"hidden/{number}"))

    await database.write(hide, actor="root", timeout_s=60)
    assert [await ask(headers) for headers in callers] == before
    assert all(len(statements) == 1 for statements in before)
    sa.event.remove(database._reader, "before_cursor_execute", note)
