"""Files of a SQLite store with something in a column that does not belong there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stores.sqlite_rig import Rig

# What a schema of types does not let in, a damaged page may hold all the same.
UNTYPED = """
    PRAGMA writable_schema = ON;
    UPDATE sqlite_master SET sql = replace(replace(replace(sql, ') STRICT, WITHOUT', ') WITHOUT'), ') STRICT', ')'), 'NOT NULL', '')
    WHERE name IN ('sessions', 'meta', 'entries', 'salts');
"""
JUNK = ("NULL", "7", "0.5", "'text'", "x''", "x'ff'", "CAST(x'ff' AS TEXT)")
COLUMNS = (
    "meta.era", "meta.high_water", "salts.salt", "sessions.owner", "sessions.id", "sessions.slot", "sessions.key",
    "sessions.opened", "sessions.user", "entries.kind", "entries.started", "entries.expires", "entries.era",
    "entries.sealed",
)  # fmt: skip


def spoil(rig: Rig, column: str, junk: str) -> None:
    """Write junk into a column of all rows."""
    rig.script(UNTYPED)
    table, name = column.split(".")
    rig.sql(f"UPDATE {table} SET {name} = {junk}")
