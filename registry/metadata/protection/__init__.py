"""Rows that protect tags and manifests from deletion."""
