"""Synchronization of mirrors: copies of many images at once, on demand or by a schedule."""
