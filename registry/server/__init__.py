"""HTTP bytes and the kernel: framing, limits, deadlines and the sockets that clients connect to."""
