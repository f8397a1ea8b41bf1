"""Files of a store on disk."""

import stat
from pathlib import Path

from storage.local.driver import LocalDriver


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def put(driver: LocalDriver, session: str, key: str, data: bytes = b"data") -> None:
    upload = await driver.claim(session)
    await upload.append(data, None)
    await upload.finish(key)
