"""Backups to another directory while the registry serves (`docs/backup.md`)."""
