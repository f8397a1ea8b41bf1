"""Use cases, one module per noun. They enforce the write order: bytes first, then rows."""
