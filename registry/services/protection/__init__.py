"""Holds and immutable tags."""
