"""The registries that are compared, and their processes."""
