"""Commands for the machine: processes, database, stores and backups."""
