"""Commands for quotas, protection, retention and garbage collection."""
