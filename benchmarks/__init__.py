"""Benchmarks of Moorage next to other registries. README.md says how to run them."""
