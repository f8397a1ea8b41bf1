"""SQL: what exists and who may see it. The only importer of SQLAlchemy and Alembic."""
