"""Commands for accounts and permissions."""
