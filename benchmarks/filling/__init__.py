"""Content that is written directly to the data of a registry."""
