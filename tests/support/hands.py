"""The registry's clock in a test's hands."""

import pytest

from registry import clock


class Hands:
    """Moves the clock forward; what a process measured by other clocks does not move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0
        real = clock.now
        monkeypatch.setattr(clock, "now", lambda: real() + self._ahead)

    def forward(self, seconds: float) -> None:
        self._ahead += int(seconds * 1_000_000)
