"""Rows of scrubs, backups and copies of the database."""
