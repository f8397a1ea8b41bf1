"""Backups to another directory while the registry serves (`docs/operate/backup.md`)."""
