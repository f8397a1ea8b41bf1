"""Revision numbers and the change feed, by which replicas keep their caches correct."""
