"""The answers that the model expects, and the comparison with real ones."""

from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.support.kit import read_parts


@dataclass
class Want:
    """An expected answer.

    A None value in `headers` means that the header must be absent. Other fields that are None are
    not compared.
    """

    status: int
    headers: dict[str, str | None] = field(default_factory=dict)
    body: bytes | None = None
    json: Any = None
    code: str | None = None
    digests: list[str] | None = None
    """The `detail.digest` of each error."""
    detail: Any = None
    parts: list[tuple[str, bytes]] | None = None
    """The ranges of a multipart body, with their bytes."""

    def check(self, answer: httpx.Response) -> None:
        """Fail unless the answer matches."""
        request = f"{answer.request.method} {answer.request.url.raw_path.decode()}"
        assert answer.status_code == self.status, f"{request}: {answer.text}"
        assert answer.headers["Docker-Distribution-API-Version"] == "registry/2.0"
        for name, value in self.headers.items():
            assert answer.headers.get(name) == value, f"{name} of {request}"
        if answer.request.method == "HEAD":
            assert answer.content == b"", request
            return
        if self.body is not None:
            assert answer.content == self.body, request
        if self.parts is not None:
            assert read_parts(answer.headers["Content-Type"], answer.content) == self.parts, request
            assert answer.headers["Content-Length"] == str(len(answer.content)), request
        if self.json is not None:
            assert answer.json() == self.json, request
        if self.code is not None:
            self._check_errors(answer, request)

    def _check_errors(self, answer: httpx.Response, request: str) -> None:
        assert answer.headers["Content-Type"] == "application/json"
        errors = answer.json()["errors"]
        assert {error["code"] for error in errors} == {self.code}, request
        if self.digests is not None:
            assert [error["detail"]["digest"] for error in errors] == self.digests, request
        if self.detail is not None:
            assert [error["detail"] for error in errors] == [self.detail], request


def refuse(status: int, code: str, **more: Any) -> Want:
    return Want(status, code=code, **more)


BLOB_UNKNOWN = refuse(404, "BLOB_UNKNOWN")
MANIFEST_UNKNOWN = refuse(404, "MANIFEST_UNKNOWN")
UPLOAD_BUSY = refuse(409, "BLOB_UPLOAD_INVALID")
UPLOAD_UNKNOWN = refuse(404, "BLOB_UPLOAD_UNKNOWN")
NAME_UNKNOWN = refuse(404, "NAME_UNKNOWN")
