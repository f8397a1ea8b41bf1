"""Databases, transactions, deadlines and migrations, independent of what the tables hold."""
