"""`GET /v2/`: is this a registry, and may I come in."""

from starlette.responses import JSONResponse, Response

from registry.api.call import Call


async def get_base(call: Call) -> Response:
    del call
    return JSONResponse({})
