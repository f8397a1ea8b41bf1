"""Endpoints for operators: health, readiness, metrics, and a page at `/`."""

import contextlib
import html

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from registry import metrics
from registry.errors import DatabaseUnavailableError
from registry.http.errors import RETRY_AFTER
from registry.services.services import Services

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Moorage</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}}
pre{{background:#f3f3f3;padding:1rem;overflow:auto}}</style>
<h1>Moorage</h1>
<p>This is a registry for Docker and OCI images. To push one:</p>
<pre>docker tag IMAGE {host}/IMAGE
docker push {host}/IMAGE</pre>
<p>To pull it elsewhere: <code>docker pull {host}/IMAGE</code></p>
<p>For programs: <a href="v2/_catalog">catalogue</a>, <a href="readyz">readiness</a>,
<a href="metrics">metrics</a>.</p>
</html>
"""


class Ops:
    """The endpoints that are not part of the registry API."""

    def __init__(self, registry: Services) -> None:
        self._registry = registry

    async def get_page(self, request: Request) -> Response:
        host = html.escape(request.headers.get("host", "localhost:5000"))
        return HTMLResponse(
            _PAGE.format(host=host),
            headers={
                "Content-Security-Policy": (
                    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
                )
            },
        )

    async def get_health(self, request: Request) -> Response:
        """Return 200 while the process responds at all."""
        del request
        return JSONResponse({"status": "alive"})

    async def get_readiness(self, request: Request) -> Response:
        """Return 200 if requests can be served, else 503 with the problems."""
        del request
        problems = await self._registry.health.list_problems()
        if problems:
            body = {"status": "not ready", "problems": problems}
            return JSONResponse(body, 503, {"Retry-After": RETRY_AFTER})
        return JSONResponse({"status": "ready"})

    async def get_metrics(self, request: Request) -> Response:
        del request
        if not self._registry.health.waiting_for:
            await self._count()
        metrics.update()
        text = await run_in_threadpool(metrics.render)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _count(self) -> None:
        """Update the metrics that are read from the database."""
        # Without a database they keep their values: then the other metrics matter most.
        with contextlib.suppress(DatabaseUnavailableError):
            metrics.BLOBS_DAMAGED.set(await self._registry.blobs.count_damaged())
            for kind, number in (await self._registry.collector.count_queued()).items():
                metrics.GC_QUEUE.labels(kind).set(number)
            unreadable = await self._registry.scrub.manifests.count()
            metrics.MANIFESTS_UNREADABLE.set(unreadable)
            scrub = await self._registry.scrub.find()
            if scrub is not None and scrub.finished_at is not None:
                metrics.SCRUB_FINISHED.set(scrub.finished_at / 1_000_000)
