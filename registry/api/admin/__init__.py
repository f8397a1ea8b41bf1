"""The HTTP side of the admin API."""
