"""Rows of mirrors."""
