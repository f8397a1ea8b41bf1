"""The endpoint `GET /v2/`, which checks the API version and the credentials."""

from starlette.responses import JSONResponse, Response

from registry.http.request_context import RequestContext


async def get_base(context: RequestContext) -> Response:
    context.allow_reuse()
    return JSONResponse({})
