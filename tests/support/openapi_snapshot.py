"""The committed snapshot of the OpenAPI document of the admin API.

The snapshot makes each change of the wire visible in review. To update it after an intended change:

    .venv/bin/python -m tests.support.openapi_snapshot
"""

import json
from pathlib import Path

from registry.api.admin.openapi import build_document

SNAPSHOT = Path(__file__).parents[1] / "api" / "openapi.json"
COMMAND = ".venv/bin/python -m tests.support.openapi_snapshot"


def render() -> str:
    """Return the document as sorted, indented JSON, without the version of Moorage."""
    document = build_document()
    document["info"]["version"] = "snapshot"
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SNAPSHOT.write_text(render(), encoding="utf-8")
