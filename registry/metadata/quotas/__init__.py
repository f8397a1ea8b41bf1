"""Rows of quotas and usage counters."""
