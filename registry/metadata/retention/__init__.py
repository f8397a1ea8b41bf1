"""Rows of retention rules and their runs."""
