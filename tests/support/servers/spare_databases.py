"""PostgreSQL databases that tests use one after another.

Creating and dropping one takes 160 ms of processor time of the server, emptying one 20 ms.
"""

from dataclasses import dataclass

import psycopg

# Objects of users have higher identifiers. Every change of one adds, removes or replaces a row.
# A table that a test has analyzed would have other query plans.
_FIRST_OF_USERS = 16384
_CATALOGS = (
    *("pg_class.oid", "pg_attrdef.oid", "pg_constraint.oid", "pg_trigger.oid", "pg_proc.oid"),
    *("pg_type.oid", "pg_namespace.oid", "pg_rewrite.oid", "pg_policy.oid", "pg_publication.oid"),
    *("pg_attribute.attrelid", "pg_index.indexrelid", "pg_sequence.seqrelid"),
    *("pg_statistic.starelid", "pg_statistic_ext.oid"),
)
_OBJECTS = " UNION ALL ".join(
    "SELECT count(*), max(xmin::text::bigint) "
    f"FROM {column.partition('.')[0]} WHERE {column} >= {_FIRST_OF_USERS}"
    for column in _CATALOGS
)
_SETTINGS = (
    "SELECT count(*), NULL FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase "
    "WHERE d.datname = current_database()"
)
_OTHERS = (
    "SELECT bool_and(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
_FILLED = (
    "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' "
    f"AND oid >= {_FIRST_OF_USERS} AND pg_relation_size(oid) > 0"
)
_SEQUENCES = "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'S' ORDER BY 1"


Description = list[tuple[int, int | None]]
"""What changes with each change of the schema, or of a setting, of a database."""


@dataclass(frozen=True)
class Content:
    """The rows and sequences of a database that has nothing but its schema."""

    rows: dict[str, bytes]
    sequences: list[tuple[str, int, bool]]


def read_content(conninfo: str) -> Content:
    """Read the content of a database: its tables in the format of COPY, and its sequences."""
    with psycopg.connect(conninfo) as connection:
        rows = {}
        for (table,) in connection.execute(_FILLED).fetchall():
            with connection.cursor().copy(f"COPY {table} TO STDOUT") as copy:
                rows[table] = b"".join(map(bytes, copy))
        sequences = []
        for (name,) in connection.execute(_SEQUENCES).fetchall():
            found = connection.execute(f"SELECT last_value, is_called FROM {name}").fetchone()
            assert found is not None
            sequences.append((name, *found))
        return Content(rows, sequences)


def describe(conninfo: str) -> Description:
    """Return what changes with each change of the schema, or of a setting, of a database."""
    with psycopg.connect(conninfo) as connection:
        return _describe(connection)


def _describe(connection: psycopg.Connection) -> Description:
    return connection.execute(f"{_OBJECTS} UNION ALL {_SETTINGS}").fetchall()


def empty(conninfo: str, content: Content, schema: Description) -> Description | None:
    """End all sessions of a database, and set its content to `content`.

    Return the new description of its schema, or None if it is not as `schema` describes: then the
    database cannot be used again.
    """
    with psycopg.connect(conninfo) as connection:
        ended = connection.execute(_OTHERS).fetchone()
        if ended not in {(None,), (True,)} or _describe(connection) != schema:
            return None
        filled = [table for (table,) in connection.execute(_FILLED).fetchall()]
        if filled:
            connection.execute(f"TRUNCATE {', '.join(filled)} CASCADE")
        for table, rows in content.rows.items():
            with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                copy.write(rows)
        connection.cursor().executemany("SELECT setval(%s, %s, %s)", content.sequences)
        connection.commit()
        return _describe(connection)
