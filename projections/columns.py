"""The kinds of column that the read models' tables are made of, in SQLite and PostgreSQL alike."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Index,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    TypeDecorator,
)
from sqlalchemy.types import TypeEngine

METADATA: Final = MetaData()


class Wide(TypeDecorator[int]):
    """A signed 128-bit integer: NUMERIC(39) in PostgreSQL, decimal text in SQLite (R1.6)."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """NUMERIC where the database has whole numbers of that width."""
        wide: TypeEngine[Any] = Numeric(39, 0) if dialect.name == "postgresql" else String(40)
        return dialect.type_descriptor(wide)

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:
        """To the database."""
        return value if value is None or dialect.name == "postgresql" else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        """From the database."""
        return None if value is None else int(value)


class Octets(LargeBinary):
    """Bytes as they are: both drivers take them, and wrapping each costs more than all else."""

    def bind_processor(self, dialect: Dialect) -> None:
        """Nothing to do on the way in."""

    def result_processor(self, dialect: Dialect, coltype: object) -> None:
        """Nor on the way out."""


def table(name: str, *columns: Column[Any] | Index) -> Table:
    """A table of the read models; its key orders it on disk."""
    return Table(name, METADATA, *columns, sqlite_with_rowid=False)


def octets(name: str, *, key: bool = False, null: bool = False) -> Column[Any]:
    """An id, a key or a hash."""
    return Column(name, Octets, primary_key=key, nullable=null)


def integer(name: str, *, key: bool = False, null: bool = False) -> Column[Any]:
    """A 64-bit integer."""
    # Never a serial column: every key comes from the ledger.
    return Column(name, BigInteger, primary_key=key, nullable=null, autoincrement=False)


def text(name: str, *, key: bool = False, null: bool = False) -> Column[Any]:
    """Text."""
    return Column(name, String, primary_key=key, nullable=null)


def wide(name: str, *, null: bool = False) -> Column[Any]:
    """A 128-bit integer."""
    return Column(name, Wide, nullable=null)


def truth(name: str, *, null: bool = False) -> Column[Any]:
    """A boolean."""
    return Column(name, Boolean, nullable=null)


def json(name: str) -> Column[Any]:
    """A list that nobody filters by."""
    return Column(name, JSON, nullable=False)
