"""Backups in a folder elsewhere, made while the registry serves (`docs/backup.md`)."""
