"""Naming conventions and column types of all tables."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from registry.oci.names import RepositoryName
from storage.digest import Digest

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


class DigestText(sa.types.TypeDecorator[Digest]):
    """A Digest, stored as `algorithm:hex`."""

    impl = TEXT
    cache_ok = True

    def process_bind_param(self, value: Digest | None, dialect: Dialect) -> str | None:
        del dialect
        return None if value is None else str(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Digest | None:
        del dialect
        return None if value is None else Digest(*value.split(":", 1))


class NameText(sa.types.TypeDecorator[RepositoryName]):
    """A RepositoryName, stored as text."""

    impl = TEXT
    cache_ok = True

    def process_bind_param(self, value: RepositoryName | None, dialect: Dialect) -> str | None:
        del dialect
        return None if value is None else str(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> RepositoryName | None:
        del dialect
        return None if value is None else RepositoryName(value)
