"""Mirrors: content of upstream registries."""
