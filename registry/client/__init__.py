"""HTTP clients for other servers. The only package that imports httpx."""
