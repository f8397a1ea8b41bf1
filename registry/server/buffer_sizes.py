"""The sizes of the buffers of a connection."""

READ_AHEAD = 32 << 10
"""The bytes of a body to buffer while the application does not wait for them."""

READ_BODY = 256 << 10
"""The bytes to read at once while the application waits for a body."""

WRITE_BUFFER = 16 << 10
"""The bytes that may wait for a client to read before the application has to wait."""

MAX_DISCARDED = 64 << 20
"""The maximum number of bytes to read and drop after a refusal.

A client that is still sending can then read the refusal.
"""
