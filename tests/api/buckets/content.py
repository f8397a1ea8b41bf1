"""A blob of several parts."""

from storage.digest import Digest
from storage.s3.driver import S3Driver
from tests.api.conftest import Api
from tests.support.content import distinct_words
from tests.support.kit import (
    list_bucket,
)

NAME = "team/app"


PART = 5 << 20


DATA = distinct_words(2 * PART) + b"the end"


DIGEST = Digest.of(DATA)


PARTS = {"storage.part_size": "5MiB"}


def blob(digest: Digest) -> str:
    return f"/v2/{NAME}/blobs/{digest}"


async def require_nothing_kept(api: Api) -> None:
    while await api.opened.registry.deletions.sweep():
        pass
    driver = api.opened.driver
    assert isinstance(driver, S3Driver)
    assert list_bucket(driver, "blobs/") + list_bucket(driver, "staging/") == []
