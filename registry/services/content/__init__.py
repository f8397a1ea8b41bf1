"""Repositories, manifests, tags, blobs and uploads."""
