"""Content-addressed blob storage: bytes, digests and keys, without SQL, HTTP or repositories."""
