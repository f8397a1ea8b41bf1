"""Bytes, digests and keys: content-addressed blobs on a store. Knows no SQL, HTTP or repository."""
