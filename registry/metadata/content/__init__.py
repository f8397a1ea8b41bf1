"""Rows of repositories, manifests, tags, blobs and uploads."""
