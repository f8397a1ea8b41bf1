"""Scrubs, health, copies of stores and databases, and other care for a running registry."""
