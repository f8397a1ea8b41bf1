"""Use cases, one file a noun. They own the order 'bytes, then rows'."""
