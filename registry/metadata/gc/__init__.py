"""Rows of garbage collection: its queue, its state and pending deletions."""
