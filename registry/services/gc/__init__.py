"""Garbage collection of unreferenced content."""
