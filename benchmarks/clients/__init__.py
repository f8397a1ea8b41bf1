"""Load generators on plain sockets, and wrk."""
