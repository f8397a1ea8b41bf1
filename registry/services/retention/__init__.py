"""Retention rules, plans and runs."""
