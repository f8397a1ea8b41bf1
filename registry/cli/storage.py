"""`moorage storage`: the stores of blobs."""

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from registry.cli import output
from registry.cli.opened import run
from registry.errors import ConfigError
from registry.services.moving import Moved, Rest
from registry.services.registry import Registry
from registry.units import format_size, parse_duration, parse_size

_EVERY = 0.2
"""Seconds between two looks of the progress bar."""


def copy(args: argparse.Namespace) -> int:
    keep, rate = _read(args.keep, "--keep", parse_duration), 0
    if args.pace:
        rate = _read(args.pace, "--pace", parse_size)
    parallel = _read(args.parallel, "--parallel", int)
    if parallel < 1:
        raise ConfigError("--parallel is a whole number above zero")

    async def work(registry: Registry) -> tuple[Moved, Rest]:
        plan, moved = await registry.moving.measure(), Moved()
        if args.dry_run:
            return moved, plan
        async with _shown(plan, moved):
            await registry.moving.run(moved, parallel=parallel, keep=keep, rate=rate)
        return moved, await registry.moving.measure()

    moved, rest = run(args, work)
    if args.json:
        output.write_json(_as_json(moved, rest))
    elif args.dry_run:
        output.write(f"{_count(rest)} to move.")
    else:
        _tell(moved, rest)
    return 0 if args.dry_run or not rest.blobs else 1


def _read(text: str, option: str, parse: Any) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigError(f"{option} {text}: {error}") from error


@contextlib.asynccontextmanager
async def _shown(plan: Rest, moved: Moved) -> AsyncIterator[None]:
    """Show a bar meanwhile, on a terminal."""

    async def show() -> None:
        while True:
            done = f"{moved.blobs} of {plan.blobs} blobs"
            output.show_progress(moved.read, plan.bytes, done)
            await asyncio.sleep(_EVERY)

    showing = asyncio.create_task(show())
    try:
        yield
    finally:
        showing.cancel()
        output.end_progress()


def _as_json(moved: Moved, rest: Rest) -> dict[str, Any]:
    troubles = [{"digest": str(each.digest), "reason": each.reason} for each in moved.troubles]
    done = {"blobs": moved.blobs, "bytes": moved.bytes, "troubles": troubles}
    return {"moved": done, "left": asdict(rest)}


def _count(rest: Rest) -> str:
    return f"{rest.blobs} blobs of {format_size(rest.bytes)}"


def _tell(moved: Moved, rest: Rest) -> None:
    output.write(f"Moved {moved.blobs} blobs of {format_size(moved.bytes)}.")
    for trouble in moved.troubles:
        output.complain(f"{trouble.digest} stays: {trouble.reason}; a push of it heals it")
    if rest.blobs:
        output.complain(f"{_count(rest)} are still in the old store; run this again")
        if rest.blobs > len(moved.troubles):
            output.complain("some came meanwhile: does a server still push there?")
    elif rest.sessions or rest.doomed:
        output.write(
            f"The old store has no blobs any more, but {rest.sessions} open upload sessions and "
            f"{rest.doomed} keys that a server is about to remove: leave [old_storage] in the "
            "settings until this command finds none."
        )
    else:
        output.write("The old store is empty: [old_storage] can be taken out of the settings.")
