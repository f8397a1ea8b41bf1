"""The Docker Registry v2 / OCI distribution endpoints, one file per group."""
