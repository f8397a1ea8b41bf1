"""The processes that run a registry: `moorage serve` and `moorage worker`."""
