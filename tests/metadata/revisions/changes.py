"""Changes of the database by this process and by another one."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from registry.metadata.access import policy
from registry.metadata.content import repositories
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.oci.names import RepositoryName
from tests.metadata.rows import add_blob

ROOT = Path(__file__).resolve().parents[3]


WRITER = """
import asyncio, mmap, struct, sys
from registry.metadata.access import policy
from registry.metadata.engine.database import Database

def change(tx):
    tx.change_policy()
    return policy.read_revision(tx) + 1  # as it will be: the counter is taken last

async def steps(database):
    while sys.stdin.readline():
        print(await database.write(change, actor=""), flush=True)

async def storm(database, path):
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 16) as shared:
        while not struct.unpack_from("q", shared, 8)[0]:
            number = await database.write(change, actor="")
            struct.pack_into("q", shared, 0, number)

async def main(url, *arguments):
    database = Database(url)
    print("ready", flush=True)
    await (storm(database, *arguments) if arguments else steps(database))
    await database.close()

asyncio.run(main(*sys.argv[1:]))
"""


def change(tx: Transaction) -> None:
    tx.change_policy()


async def bump(database: Database) -> int:
    """Change the policy from another connection. Return its new revision."""
    await database.write(change, actor="")
    return await database.read(policy.read_revision)


@contextlib.contextmanager
def process(url: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, url, *arguments],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        yield started


def make(tx: Transaction, *names: RepositoryName) -> None:
    for name in names:
        add_blob(tx, repositories.ensure(tx, name), "layer")
