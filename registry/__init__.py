"""Moorage, a self-hosted Docker/OCI registry."""
