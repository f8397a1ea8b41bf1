"""Servers that tests run, and proxies in front of them."""
