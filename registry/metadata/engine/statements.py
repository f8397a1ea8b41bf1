"""Statements that are built and compiled once, and run on the driver's cursor.

SQLAlchemy compiles a statement once for each dialect. Its types convert the values, and its
connection translates the errors. `tests/metadata/engine/test_statements.py` checks every part of
SQLAlchemy that this module relies on.
"""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

Row: TypeAlias = tuple[Any, ...]
Values: TypeAlias = Mapping[str, Any]

_Convert: TypeAlias = Callable[[Any], Any]

NOW = "now"
"""Name of the parameter that is the start time of the transaction, in microseconds."""

insert_into = sqlite.insert
"""Return an insert that supports ON CONFLICT, which SQLAlchemy also compiles for PostgreSQL.

The module of PostgreSQL takes 60 ms to import, so only servers that use PostgreSQL import it.
"""


def bind(*columns: str) -> dict[str, sa.BindParameter[Any]]:
    """Return a parameter for each column, with the name of the column."""
    return {column: sa.bindparam(column) for column in columns}


def bind_limit() -> sa.BindParameter[int]:
    """Return the parameter `n`, the maximum number of rows."""
    return sa.bindparam("n", type_=sa.Integer)


def bind_now() -> sa.BindParameter[int]:
    """Return the parameter `now`, which the transaction sets."""
    return sa.bindparam(NOW, type_=sa.BigInteger)


class DatabaseClock(sa.ColumnElement[int]):
    """The time of the database's clock, in microseconds.

    All processes share this clock. Leases use it, because the clocks of machines differ. On SQLite,
    it is the start time of the transaction.
    """

    inherit_cache = True
    type = sa.BigInteger()


@compiles(DatabaseClock, "sqlite")
def _compile_sqlite_clock(_clock: DatabaseClock, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(bind_now(), **options)


@compiles(DatabaseClock, "postgresql")
def _compile_postgres_clock(_clock: DatabaseClock, compiler: SQLCompiler, **options: Any) -> str:
    seconds = sa.extract("epoch", sa.func.clock_timestamp())
    return compiler.process(sa.cast(seconds * 1_000_000, sa.BigInteger), **options)


@compiles(sqlite.dml.OnConflictDoUpdate, "postgresql")
def _compile_upsert(clause: Any, compiler: Any, **options: Any) -> str:
    clause.constraint_target = None  # PostgreSQL could also have the name of a constraint here
    return str(compiler.visit_on_conflict_do_update(clause, **options))


@compiles(sqlite.dml.OnConflictDoNothing, "postgresql")
def _compile_insert(clause: Any, compiler: Any, **options: Any) -> str:
    clause.constraint_target = None
    return str(compiler.visit_on_conflict_do_nothing(clause, **options))


class _Text:
    """The text of a statement for one dialect and one length of each list."""

    def __init__(self, compiled: SQLCompiler, lengths: Mapping[str, int]) -> None:
        lists = {name: [None] * length for name, length in lengths.items()}
        expanded = compiled.construct_expanded_state({**compiled.params, **lists})
        processors: dict[str, Any] = {**compiled._bind_processors, **expanded.processors}  # noqa: SLF001
        names = expanded.positiontup if compiled.positional else list(expanded.parameters)
        self.text = expanded.statement
        self._names = None if compiled.positional else names or []
        self._pick = _make_picker(names or ())
        self._converters = [
            (i, processors[name])
            for i, name in enumerate(names or ())
            if processors.get(name) is not None
        ]
        self._constants = {
            name: each.value for name, each in compiled.binds.items() if not each.required
        }
        self._elements = {name: expanded.parameter_expansion[name] for name in lengths}
        self._types = [column.type for column in compiled._result_columns]  # noqa: SLF001
        self._dialect = compiled.dialect
        self._results: list[tuple[int, _Convert]] | None = None

    def bind(self, values: Values) -> tuple[Any, ...] | dict[str, Any]:
        """Return the values in the form that the driver takes."""
        if self._constants or self._elements:
            values = {**self._constants, **values, **self._spread(values)}
        picked: Sequence[Any] = self._pick(values)
        if self._converters:
            picked = list(picked)
            for i, convert in self._converters:
                picked[i] = convert(picked[i])
        return tuple(picked) if self._names is None else dict(zip(self._names, picked, strict=True))

    def _spread(self, values: Values) -> dict[str, Any]:
        """Return the elements of the lists. The last value fills the rest of a list."""
        spread: dict[str, Any] = {}
        for name, elements in self._elements.items():
            given = list(values[name])
            given += given[-1:] * (len(elements) - len(given))
            spread.update(zip(elements, given, strict=True))
        return spread

    def convert(self, rows: Sequence[Row], description: Sequence[Sequence[Any]]) -> list[Row]:
        """Return the driver's rows with values of the types of the columns."""
        if self._results is None:
            found = [
                (i, column._cached_result_processor(self._dialect, described[1]))  # noqa: SLF001
                for i, (column, described) in enumerate(zip(self._types, description, strict=True))
            ]
            self._results = [(i, convert) for i, convert in found if convert is not None]
        return [self._convert_row(row) for row in rows] if self._results else list(rows)

    def _convert_row(self, row: Row) -> Row:
        cells = list(row)
        for i, convert in self._results or ():
            cells[i] = convert(cells[i])
        return tuple(cells)


def _make_picker(names: Sequence[str]) -> Callable[[Values], Sequence[Any]]:
    """Return a function that returns the values of the names, in their order."""
    if len(names) > 1:
        return operator.itemgetter(*names)
    return lambda values: [values[name] for name in names]


class _Plan:
    """A statement compiled for one dialect."""

    def __init__(self, construct: sa.Executable, dialect: sa.Dialect) -> None:
        compiled = construct.compile(dialect=dialect)  # type: ignore[attr-defined]
        self._compiled: SQLCompiler = compiled
        self._names = {each.key for each in compiled.binds.values() if each.required}
        self._lists = sorted(each.key for each in compiled.binds.values() if each.expanding)
        self._texts: dict[tuple[int, ...], _Text] = {}
        self.takes_now = NOW in self._names

    def find_text(self, values: Values) -> _Text:
        """Return the text for the values. Raises TypeError if names are missing or unknown."""
        if values.keys() != self._names:
            raise TypeError(f"the statement takes {sorted(self._names)}, not {sorted(values)}")
        lengths = tuple(_round_up(len(values[name])) for name in self._lists) if self._lists else ()
        text = self._texts.get(lengths)
        if text is None:
            text = _Text(self._compiled, dict(zip(self._lists, lengths, strict=True)))
            self._texts[lengths] = text
        return text


def _round_up(length: int) -> int:
    """Return the next power of two, or zero."""
    return 1 << (length - 1).bit_length() if length else 0


class Statement:
    """A statement of SQLAlchemy Core whose values are parameters, created at import.

    A parameter of `in_` takes a collection. Its length is rounded up to a power of two and the last
    value is repeated, so that a statement has few texts. `now` is set by the transaction.
    """

    def __init__(self, construct: sa.Executable) -> None:
        self._construct = construct
        self._plans: dict[str, _Plan] = {}

    def run(
        self, connection: sa.Connection, now: int, values: dict[str, Any]
    ) -> tuple[list[Row], int]:
        """Run the statement in the connection's transaction. Return all rows, and their count.

        Without rows, the count is that of the changed ones. Errors are those of `execute`.
        """
        plan = self._find_plan(connection.dialect)
        if plan.takes_now:
            values[NOW] = now
        text = plan.find_text(values)
        return _execute(connection, text, text.bind(values))

    def run_each(self, connection: sa.Connection, now: int, rows: Iterable[Values]) -> None:
        """Run the statement for each of the rows, in order and without a result."""
        plan = self._find_plan(connection.dialect)
        given = [{**row, NOW: now} if plan.takes_now else row for row in rows]
        if not given:
            return
        text = plan.find_text(given[0])
        if len(given) == 1:
            _execute(connection, text, text.bind(given[0]))
        else:
            _execute(connection, text, [text.bind(row) for row in given], many=True)

    def _find_plan(self, dialect: sa.Dialect) -> _Plan:
        plan = self._plans.get(dialect.name)
        if plan is None:
            plan = self._plans[dialect.name] = _Plan(self._construct, dialect)
        return plan


def run_text(connection: sa.Connection, sql: str) -> None:
    """Run SQL without parameters in the connection's transaction, such as a savepoint."""
    _run_on_cursor(connection, sql, (), many=False)


def _execute(
    connection: sa.Connection, text: _Text, parameters: Any, *, many: bool = False
) -> tuple[list[Row], int]:
    if not connection.in_transaction():
        connection.begin()
    rows, description, count = _run_on_cursor(connection, text.text, parameters, many=many)
    return (text.convert(rows, description) if rows else []), count


def _run_on_cursor(
    connection: sa.Connection, sql: str, parameters: Any, *, many: bool
) -> tuple[Sequence[Row], Sequence[Any], int]:
    """Return the rows of a statement, their description and the row count of the driver."""
    cursor = connection.connection.cursor()
    if connection._has_events or connection.engine._has_events:  # noqa: SLF001
        for listener in connection.dispatch.before_cursor_execute:
            sql, parameters = listener(connection, cursor, sql, parameters, None, many)
    try:
        if many:
            cursor.executemany(sql, parameters)
        else:
            cursor.execute(sql, parameters)
        description = cursor.description or ()
        rows = cursor.fetchall() if description else ()
        count = cursor.rowcount
    except BaseException as error:
        _raise_translated(connection, error, sql, parameters, cursor)
        raise
    cursor.close()
    return rows, description, count


def _raise_translated(
    connection: sa.Connection, error: BaseException, sql: str, parameters: Any, cursor: Any
) -> None:
    """Raise an error of the driver as SQLAlchemy does, after the listeners have judged it."""
    is_of_driver = isinstance(error, connection.dialect.loaded_dbapi.Error)
    if is_of_driver or not isinstance(error, Exception):
        connection._handle_dbapi_exception(error, sql, parameters, cursor, None)  # noqa: SLF001
    cursor.close()
