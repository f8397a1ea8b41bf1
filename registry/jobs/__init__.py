"""Background jobs: claimed by a lease, resumable, idempotent."""
