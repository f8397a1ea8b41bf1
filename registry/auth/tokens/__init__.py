"""Tokens that the registry issues, and tokens of external issuers."""
