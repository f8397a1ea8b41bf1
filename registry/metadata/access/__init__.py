"""Rows of users, groups, grants, credentials, keys and the audit log."""
