"""Users, groups, grants, credentials and the audit log."""
