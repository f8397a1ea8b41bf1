"""Robot accounts and their secrets."""

from registry.clock import rfc3339
from registry.errors import ConflictError, NotFoundError
from registry.operations.context import OperationContext
from registry.operations.fields import (
    AccountName,
    DurationText,
    Page,
    PageRequest,
    RequestModel,
    ResponseModel,
    Timestamp,
    clamp,
    make_page,
    read_duration,
    write_timestamp,
)
from registry.operations.operation import ADMINS, Operation
from registry.services.access import robots
from registry.services.access.robots import NewRobotSecret


class Robot(ResponseModel, frozen=True):
    """A robot. It signs in as `username`.

    `last_used_at` is the time of its last sign-in, to within some minutes.
    """

    name: str
    username: str
    created_at: Timestamp
    expires_at: Timestamp | None
    last_used_at: Timestamp | None


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
    expires: DurationText | None = None


class RotateRobot(RequestModel, frozen=True):
    """How to rotate the secret of a robot.

    The old secrets stay valid for `overlap`. `expires` sets when the robot expires; without it,
    that does not change.
    """

    name: str
    overlap: DurationText = "0s"
    expires: DurationText | None = None


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


async def list_robots(context: OperationContext, request: PageRequest) -> Page[Robot]:
    """List robots, by name."""
    n = clamp(request.n)
    return make_page(
        await context.access.robots.list_page(n + 1, request.last), n, _show, lambda row: row.name
    )


async def create_robot(context: OperationContext, request: CreateRobot) -> RobotSecret:
    """Add a robot. Only this response contains its secret."""
    return _reveal(
        await context.access.robots.add(request.name, read_duration(request.expires), context.actor)
    )


async def get_robot(context: OperationContext, request: NamedRobot) -> Robot:
    """Return a robot."""
    return _show(await context.access.robots.get(request.name))


async def rotate_robot(context: OperationContext, request: RotateRobot) -> RobotSecret:
    """Create a new secret for a robot. Only this response contains it."""
    return _reveal(
        await context.access.robots.rotate(
            request.name,
            read_duration(request.overlap) or 0.0,
            context.actor,
            lifetime=read_duration(request.expires),
        )
    )


async def delete_robot(context: OperationContext, request: NamedRobot) -> None:
    """Delete a robot with its secrets and grants."""
    await context.access.robots.remove(request.name, context.actor)


OPERATIONS = (
    Operation("GET", "/robots", list_robots, ADMINS),
    Operation("POST", "/robots", create_robot, ADMINS, (ConflictError,), 201),
    Operation("GET", "/robots/{name}", get_robot, ADMINS, (NotFoundError,)),
    Operation("DELETE", "/robots/{name}", delete_robot, ADMINS, (NotFoundError,), 204),
    Operation("POST", "/robots/{name}/rotate", rotate_robot, ADMINS, (NotFoundError,)),
)
