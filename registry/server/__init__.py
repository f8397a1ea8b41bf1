"""The HTTP server: framing, limits, deadlines and listening sockets."""
