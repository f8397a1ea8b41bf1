"""Robot accounts and their secrets."""

from registry.api.admin.call import OperationContext
from registry.api.admin.fields import (
    AccountName,
    Life,
    Page,
    PageAsked,
    RequestModel,
    ResponseModel,
    Timestamp,
    clamp,
    make_page,
    read_life,
    write_timestamp,
)
from registry.api.admin.operation import ADMINS, Operation
from registry.clock import rfc3339
from registry.errors import ConflictError, NotFoundError
from registry.services.access import robots
from registry.services.access.robots import NewRobotSecret


class Robot(ResponseModel, frozen=True):
    """A robot. It signs in as `username`; `used_at` is its last sign-in, to within some minutes."""

    name: str
    username: str
    created_at: Timestamp
    expires_at: Timestamp | None
    used_at: Timestamp | None


class RobotSecret(ResponseModel, frozen=True):
    """The secret of a robot. It is shown only once."""

    name: str
    username: str
    secret: str
    expires_at: Timestamp | None


class NamedRobot(RequestModel, frozen=True):
    """The name of a robot."""

    name: str


class CreateRobot(RequestModel, frozen=True):
    """The robot to add. It expires after `expires`; without it, never."""

    name: AccountName
    expires: Life | None = None


class RotateRobot(RequestModel, frozen=True):
    """How to rotate the secret of a robot.

    The old secrets stay valid for `overlap`. `expires` sets when the robot expires; without it,
    that does not change.
    """

    name: str
    overlap: Life = "0s"
    expires: Life | None = None


def _show(robot: robots.Robot) -> Robot:
    return Robot(
        robot.name,
        robot.username,
        rfc3339(robot.created_at),
        write_timestamp(robot.expires_at),
        write_timestamp(robot.used_at),
    )


def _reveal(made: NewRobotSecret) -> RobotSecret:
    robot = made.robot
    return RobotSecret(robot.name, robot.username, made.secret, write_timestamp(robot.expires_at))


async def list_robots(call: OperationContext, asked: PageAsked) -> Page[Robot]:
    """List robots, by name."""
    n = clamp(asked.n)
    return make_page(
        await call.access.robots.list_page(n + 1, asked.last), n, _show, lambda row: row.name
    )


async def create_robot(call: OperationContext, asked: CreateRobot) -> RobotSecret:
    """Add a robot. Only this response contains its secret."""
    return _reveal(await call.access.robots.add(asked.name, read_life(asked.expires), call.actor))


async def get_robot(call: OperationContext, asked: NamedRobot) -> Robot:
    """Return a robot."""
    return _show(await call.access.robots.get(asked.name))


async def rotate_robot(call: OperationContext, asked: RotateRobot) -> RobotSecret:
    """Create a new secret for a robot. Only this response contains it."""
    return _reveal(
        await call.access.robots.rotate(
            asked.name,
            read_life(asked.overlap) or 0.0,
            call.actor,
            lifetime=read_life(asked.expires),
        )
    )


async def delete_robot(call: OperationContext, asked: NamedRobot) -> None:
    """Delete a robot with its secrets and grants."""
    await call.access.robots.remove(asked.name, call.actor)


OPERATIONS = (
    Operation("GET", "/robots", list_robots, ADMINS),
    Operation("POST", "/robots", create_robot, ADMINS, (ConflictError,), 201),
    Operation("GET", "/robots/{name}", get_robot, ADMINS, (NotFoundError,)),
    Operation("DELETE", "/robots/{name}", delete_robot, ADMINS, (NotFoundError,), 204),
    Operation("POST", "/robots/{name}/rotate", rotate_robot, ADMINS, (NotFoundError,)),
)
