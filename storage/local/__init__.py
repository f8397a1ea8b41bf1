"""Driver for a directory on a local file system."""
