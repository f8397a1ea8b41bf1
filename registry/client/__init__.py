"""Calls to other servers. The only importer of httpx."""
