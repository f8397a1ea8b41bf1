"""What the API is told."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """`body_idle` in seconds; `page` and `page_max` in entries of a list."""

    body_idle: float = 30.0
    page: int = 1000
    page_max: int = 10_000
    delete: bool = True
    read_only: bool = False
