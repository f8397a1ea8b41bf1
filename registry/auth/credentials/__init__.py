"""Passwords, generated secrets and the limit of failed sign-ins."""
