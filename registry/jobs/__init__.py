"""Background work: claimed by a lease, resumable, idempotent."""
