"""SQL queries and transactions; the only package that imports SQLAlchemy and Alembic."""
