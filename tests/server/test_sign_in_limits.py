"""Failed sign-ins are limited by address and account, without affecting other clients."""

import asyncio
import contextlib
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.accounts import Accounts, Login, signed
from tests.support.audit_log import read_audit
from tests.support.authenticated_server import SETTINGS, alone, client_of, operating, resident
from tests.support.servers.server import Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

MOST = 6
FEW = 3
WORKERS = 3
VICTIM = "198.51.100.7"
_NUMBERS = itertools.count()


@contextlib.contextmanager
def limited(folder: Path, workers: int, most: int) -> Iterator[Server]:
    settings = {
        **SETTINGS,
        "MOORAGE_LIMITS__FAILED_SIGN_INS": str(most),
        "MOORAGE_LOG__ACCESS": "false",
    }
    with serving(Server(folder / "data", workers, settings)) as server:
        yield server


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with limited(tmp_path_factory.mktemp("limits"), WORKERS, MOST) as server:
        yield server


@pytest.fixture(scope="module")
async def accounts(server: Server) -> AsyncIterator[Accounts]:
    async with operating(server) as accounts:
        await accounts.user("root", admin=True)
        yield accounts


@dataclass(frozen=True)
class Scene:
    """A user and client addresses that only one test uses."""

    accounts: Accounts
    http: httpx.AsyncClient
    alice: Login
    number: int

    def address(self, host: int) -> str:
        return f"198.18.{self.number}.{host}"

    @property
    def victim(self) -> str:
        return self.address(100)

    @property
    def attacker(self) -> str:
        return self.address(200)

    def wrong(self, number: int = 0) -> Login:
        return Login(self.alice.name, f"a guess {number}")

    async def sign_in(self, login: Login, address: str) -> httpx.Response:
        return await sign_in(self.http, login, address)


@pytest.fixture
async def scene(server: Server, accounts: Accounts) -> AsyncIterator[Scene]:
    number = next(_NUMBERS)
    alice = await accounts.user(f"alice{number}")
    async with client_of(server) as http:
        yield Scene(accounts, http, alice, number)


async def sign_in(http: httpx.AsyncClient, login: Login, address: str) -> httpx.Response:
    headers = {**login.basic, "X-Forwarded-For": address}
    return await http.get("/token", headers=headers)


def wrong(name: str, number: int = 0) -> Login:
    return Login(name, f"a guess {number}")


def require_refused_for_now(answer: httpx.Response) -> None:
    assert answer.status_code == 429, answer.text
    assert 1 <= int(answer.headers["Retry-After"]) <= 300
    [entry] = answer.json()["errors"]
    assert entry["code"] == "TOOMANYREQUESTS"


async def test_an_account_has_so_many_failures_on_all_workers_together(
    server: Server, scene: Scene
) -> None:
    bob = await scene.accounts.user(f"bob{scene.number}")
    statuses = []
    pids = itertools.cycle(server.worker_pids())
    for number in range(MOST):
        with alone(server, next(pids)):
            answer = await scene.sign_in(scene.wrong(number), scene.attacker)
        statuses.append(answer.status_code)
    assert statuses == [401] * MOST
    for pid in server.worker_pids():
        with alone(server, pid):
            require_refused_for_now(await scene.sign_in(scene.wrong(), scene.attacker))
            # The limit applies to the right password too, but not to other addresses.
            require_refused_for_now(await scene.sign_in(scene.alice, scene.attacker))
            assert (await scene.sign_in(scene.alice, scene.victim)).status_code == 200
            assert (await scene.sign_in(bob, scene.attacker)).status_code == 200
    fields = {"grant_type": "password", "username": scene.alice.name, "password": "a guess"}
    headers = {"X-Forwarded-For": scene.attacker}
    require_refused_for_now(await scene.http.post("/token", data=fields, headers=headers))
    answer = await scene.http.get("/v2/", headers={**scene.wrong().basic, **headers})
    require_refused_for_now(answer)


async def test_an_address_that_guesses_at_many_accounts_slows_down(scene: Scene) -> None:
    """The address gets a few tries per account. The right password of another account works."""
    bob = await scene.accounts.user(f"bob{scene.number}")
    for number in range(MOST):
        assert (await scene.sign_in(wrong(f"name{number}"), scene.attacker)).status_code == 401
    for _ in range(FEW):
        assert (await scene.sign_in(wrong("another"), scene.attacker)).status_code == 401
    require_refused_for_now(await scene.sign_in(wrong("another"), scene.attacker))
    assert (await scene.sign_in(bob, scene.attacker)).status_code == 200


async def test_many_at_once_do_not_slip_through(scene: Scene) -> None:
    """Attempts under way count too. Each worker may miss attempts under way on the others."""
    answers = await asyncio.gather(
        *(scene.sign_in(scene.wrong(number), scene.attacker) for number in range(60))
    )
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {401, 429}
    assert statuses.count(401) <= MOST * WORKERS


async def test_the_network_of_one_household_is_one_address(scene: Scene) -> None:
    for number in range(MOST):
        answer = await scene.sign_in(wrong("a"), f"2001:db8:1:2::{number:x}")
        assert answer.status_code == 401
    require_refused_for_now(await scene.sign_in(wrong("a"), "2001:db8:1:2:ffff::1"))
    assert (await scene.sign_in(wrong("b"), "2001:db8:1:3::1")).status_code == 401


async def test_an_account_under_attack_is_not_locked(scene: Scene) -> None:
    """Each of many addresses gets only a few tries, and the victim can sign in at once."""
    for number in range(MOST + 2):
        answer = await scene.sign_in(scene.wrong(number), scene.address(number))
        assert answer.status_code == 401
    for number in range(FEW):
        answer = await scene.sign_in(scene.wrong(number), scene.attacker)
        assert answer.status_code == 401, number
    require_refused_for_now(await scene.sign_in(scene.wrong(), scene.attacker))
    # Another user of that address is not affected.
    assert (await scene.sign_in(wrong("bob"), scene.attacker)).status_code == 401
    assert (await scene.sign_in(scene.wrong(), scene.victim)).status_code == 401
    assert (await scene.sign_in(scene.alice, scene.victim)).status_code == 200


async def test_a_few_slips_do_no_harm(scene: Scene) -> None:
    for number in range(MOST - 1):
        assert (await scene.sign_in(scene.wrong(number), scene.victim)).status_code == 401
    assert (await scene.sign_in(scene.alice, scene.victim)).status_code == 200


async def test_robots_are_never_kept_out(scene: Scene) -> None:
    """Robots and personal access tokens have no limit, because their secrets cannot be guessed."""
    robot = await scene.accounts.robot("ci")
    personal = await scene.accounts.token(scene.alice.name)
    for number in range(MOST + FEW):
        await scene.sign_in(wrong(robot.name, number), scene.attacker)
        await scene.sign_in(scene.wrong(number), scene.address(number))
    require_refused_for_now(await scene.sign_in(wrong(robot.name), scene.attacker))
    for login in (robot, personal):
        for address in (scene.attacker, scene.victim):
            assert (await scene.sign_in(login, address)).status_code == 200


async def test_the_audit_log_tell_of_failures(scene: Scene) -> None:
    for name in (scene.alice.name, "the password typed as name"):
        await scene.sign_in(wrong(name), scene.attacker)
    rows = [
        row
        for row in await read_audit(scene.accounts.access.audit)
        if row.kind == "sign-in.fail" and row.address == scene.attacker
    ]
    assert [row.target for row in rows] == [scene.alice.name, "(unknown)"]
    assert all(row.request_id for row in rows)


async def pull(http: httpx.AsyncClient, login: Login) -> list[float]:
    """Return the durations of manifest pulls in ascending order."""
    times = []
    for _ in range(60):
        started = time.perf_counter()
        answer = await http.get("/v2/team/app/manifests/latest", headers=login.basic)
        times.append(time.perf_counter() - started)
        assert answer.status_code == 200
    return sorted(times)


@contextlib.asynccontextmanager
async def flooding(http: httpx.AsyncClient, name: str) -> AsyncIterator[set[int]]:
    """Sign in from ever new addresses, so that only the limit on hashing applies."""
    going = True
    statuses: set[int] = set()
    numbers = itertools.count()

    async def flood() -> None:
        while going:
            number = next(numbers)
            address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
            statuses.add((await sign_in(http, wrong(name, number), address)).status_code)

    tasks = [asyncio.create_task(flood()) for _ in range(40)]
    await asyncio.sleep(1)
    try:
        yield statuses
    finally:
        going = False
        await asyncio.gather(*tasks)
    assert next(numbers) > len(tasks)


async def test_a_flood_of_sign_ins_does_not_slow_pulls(tmp_path: Path) -> None:
    with limited(tmp_path, 1, 30) as server:
        async with operating(server) as accounts, client_of(server) as http:
            root = await accounts.user("root", admin=True)
            alice = await accounts.user("alice")
            await signed(http, root.basic).push_image("team/app", "latest")
            robot = await accounts.robot("ci")
            await accounts.grant("robot:ci", "team/app", "pull")
            quiet = await pull(http, robot)
            before = resident(server)
            async with flooding(http, "alice") as statuses:
                busy = await pull(http, robot)
                # The right password still works during the flood.
                started = time.perf_counter()
                assert (await sign_in(http, alice, VICTIM)).status_code == 200
                assert time.perf_counter() - started < 60
                grown = resident(server) - before
    assert statuses <= {401, 429}
    # A pull that waited for the queue of 40 hashes would take seconds.
    assert statistics.median(busy) < statistics.median(quiet) * 10 + 0.5
    assert busy[-4] < quiet[-4] * 10 + 2
    assert grown < 150 << 20
