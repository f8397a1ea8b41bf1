"""Paths of health checks and metrics."""

HEALTH = "/healthz"
READINESS = "/readyz"
METRICS = "/metrics"
PROBES = frozenset({HEALTH, READINESS, METRICS})
"""The paths that probes request every few seconds."""
