"""Internals of uvicorn that the server uses. An upgrade that changes them fails here first."""

import inspect

import uvicorn
from uvicorn.server import ServerState


def test_the_parts_that_are_replaced_or_called_are_where_they_were() -> None:
    assert uvicorn.__version__.startswith("0.54."), "check registry/server against this version"
    for name in ("startup", "main_loop", "shutdown", "on_tick"):
        assert inspect.iscoroutinefunction(getattr(uvicorn.Server, name)), name
    assert list(inspect.signature(uvicorn.Server.startup).parameters) == ["self", "sockets"]
    assert list(inspect.signature(uvicorn.Server.shutdown).parameters) == ["self", "sockets"]
    assert list(inspect.signature(uvicorn.Server.handle_exit).parameters) == [
        *("self", "sig", "frame")
    ]
    assert set(vars(ServerState())) == {"total_requests", "connections", "tasks", "default_headers"}


def test_what_is_called_around_our_own_parts_is_where_it_was() -> None:
    startup = inspect.getsource(uvicorn.Server.startup)
    assert "self.lifespan.should_exit" in startup
    assert "self.started = True" in startup
    assert "await self.shutdown(sockets=sockets)" in inspect.getsource(uvicorn.Server)
    assert "self.force_exit = True" in inspect.getsource(uvicorn.Server.handle_exit)
