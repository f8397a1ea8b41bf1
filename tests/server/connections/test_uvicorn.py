"""What our server relies on in uvicorn: an upgrade that moves it fails here first."""

import inspect

import uvicorn
from uvicorn.server import ServerState


def test_the_parts_that_are_replaced_or_called_are_where_they_were() -> None:
    assert uvicorn.__version__.startswith("0.54."), "check registry/server against this version"
    for name in ("startup", "main_loop", "shutdown", "on_tick", "_wait_tasks_to_complete"):
        assert inspect.iscoroutinefunction(getattr(uvicorn.Server, name)), name
    assert list(inspect.signature(uvicorn.Server.startup).parameters) == ["self", "sockets"]
    assert list(inspect.signature(uvicorn.Server.shutdown).parameters) == ["self", "sockets"]
    assert list(inspect.signature(uvicorn.Server.handle_exit).parameters) == [
        *("self", "sig", "frame")
    ]
    assert set(vars(ServerState())) == {"total_requests", "connections", "tasks", "default_headers"}


def test_what_is_awaited_of_listeners_and_connections_is_what_ours_have() -> None:
    source = inspect.getsource(uvicorn.Server)
    for call in ("server.close()", "server.wait_closed()", "connection.shutdown()"):
        assert call in source
    startup = inspect.getsource(uvicorn.Server.startup)
    assert "self.lifespan.should_exit" in startup
    assert "self.started = True" in startup
