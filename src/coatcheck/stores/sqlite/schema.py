"""What the tables of a SQLite store look like, and how an older file becomes one of today."""

# ruff: noqa: S608 - what is put into a statement here is a number of ours

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coatcheck.errors import StoreFailed

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

APPLICATION_ID: Final = 0x636F6174
"""The letters "coat": what tells a store from the database of somebody else."""

TOLERANCE: Final = 1e-5
"""Dates closer than this, in seconds, count as equal."""

FUTURE: Final = 60.0
"""What is dated further ahead than this is not believed."""

_FIRST: Final = (
    # The era ends when the clock was set back: nobody knows then how old what was stored before is.
    """CREATE TABLE meta (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        era INTEGER NOT NULL,
        high_water REAL NOT NULL
    ) STRICT""",
    "INSERT INTO meta VALUES (1, 1, 0.0)",
    # The keys that sessions are, or were, filed under.
    "CREATE TABLE keys (id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID",
    # Rows move within a file when pages are split and merged, and secure_delete leaves a copy behind now and then. A
    # salt must not: these rows are appended and overwritten in place, never changed in length and never removed.
    """CREATE TABLE salts (
        slot INTEGER PRIMARY KEY,
        salt BLOB NOT NULL,
        taken INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX salts_free ON salts (slot) WHERE taken = 0",
    # AUTOINCREMENT: what a swept session left behind must never be found under a new one.
    """CREATE TABLE sessions (
        session INTEGER PRIMARY KEY AUTOINCREMENT,
        owner BLOB NOT NULL UNIQUE,
        id BLOB NOT NULL,
        slot INTEGER NOT NULL,
        key TEXT NOT NULL,
        catalog BLOB NOT NULL,
        opened REAL NOT NULL,
        user BLOB NOT NULL
    ) STRICT""",
    "CREATE INDEX sessions_opened ON sessions (opened)",
    # An entry without a body is what a delete left: its start is the floor of the key.
    """CREATE TABLE entries (
        session INTEGER NOT NULL,
        name BLOB NOT NULL,
        kind BLOB NOT NULL,
        started REAL NOT NULL,
        expires REAL NOT NULL,
        era INTEGER NOT NULL,
        sealed BLOB NOT NULL,
        PRIMARY KEY (session, name)
    ) STRICT, WITHOUT ROWID""",
    # The floor of all keys of a kind: within one session, or under scope 0 of every session.
    """CREATE TABLE floors (
        scope INTEGER NOT NULL,
        kind BLOB NOT NULL,
        floor REAL NOT NULL,
        PRIMARY KEY (scope, kind)
    ) STRICT, WITHOUT ROWID""",
)

STEPS: Final = (_FIRST,)
"""What leads from each version of the schema to the next; a file's version is how many of them it has seen."""

FIND_SESSIONS: Final = """
    SELECT s.owner, s.session, s.id, t.salt, s.key, s.opened
    FROM sessions AS s LEFT JOIN salts AS t ON t.slot = s.slot
    WHERE s.owner IN ({places})"""

FETCH_ENTRIES: Final = f"""
    SELECT kind, name, started, sealed FROM entries AS e
    WHERE session = ? AND era = ? AND expires > ? AND started <= ?
    AND NOT EXISTS (SELECT 1 FROM floors AS f WHERE f.scope = 0 AND f.kind = e.kind AND f.floor + {TOLERANCE} >= e.started)"""

# The one statement that writes an entry: it looks at the session's id, the floors and what is there already.
PUT_ENTRIES: Final = f"""
    INSERT INTO entries (session, name, kind, started, expires, era, sealed)
    WITH new (session, id, name, kind, started, expires, era, sealed) AS (VALUES {{rows}})
    SELECT session, name, kind, started, expires, era, sealed FROM new
    WHERE EXISTS (SELECT 1 FROM sessions AS s WHERE s.session = new.session AND s.id = new.id)
    AND NOT EXISTS (
        SELECT 1 FROM floors AS f
        WHERE f.scope = new.session AND f.kind = new.kind AND new.started < f.floor - {TOLERANCE}
    )
    AND NOT EXISTS (
        SELECT 1 FROM floors AS f WHERE f.scope = 0 AND f.kind = new.kind AND new.started <= f.floor + {TOLERANCE}
    )
    ON CONFLICT (session, name) DO UPDATE SET
        kind = excluded.kind, started = excluded.started, expires = excluded.expires, era = excluded.era,
        sealed = excluded.sealed
    WHERE excluded.started >= entries.started - {TOLERANCE} OR entries.era <> excluded.era OR entries.started > ?"""
PUT_ROW: Final = "(?, ?, ?, ?, ?, ?, ?, ?)"

# What began with a delete goes with it. A later write that began with it is taken: it is not known to be older.
BURY_ENTRY: Final = f"""
    INSERT INTO entries (session, name, kind, started, expires, era, sealed)
    SELECT session, ?, ?, ?, 0.0, ?, x'' FROM sessions WHERE session = ? AND id = ?
    ON CONFLICT (session, name) DO UPDATE SET
        started = excluded.started, expires = 0.0, era = excluded.era, sealed = x''
    WHERE entries.started <= excluded.started + {TOLERANCE} OR entries.era <> excluded.era OR entries.started > ?"""

RAISE_FLOOR: Final = """
    INSERT INTO floors (scope, kind, floor)
    SELECT session, ?, ? FROM sessions WHERE session = ? AND id = ?
    ON CONFLICT (scope, kind) DO UPDATE SET floor = max(floor, excluded.floor)"""

RAISE_COMMON_FLOOR: Final = """
    INSERT INTO floors (scope, kind, floor) VALUES (0, ?, ?)
    ON CONFLICT (scope, kind) DO UPDATE SET floor = max(floor, excluded.floor)"""

DELETE_KIND: Final = f"DELETE FROM entries WHERE session = ? AND kind = ? AND started <= ? + {TOLERANCE}"

TOUCH_SESSION: Final = "UPDATE sessions SET opened = ? WHERE session = ? AND id = ?"

NEXT_ENTRIES: Final = """
    SELECT session, name FROM entries WHERE (session, name) > (?, ?) ORDER BY session, name LIMIT 1 OFFSET ?"""

SWEEP_ENTRIES: Final = f"""
    DELETE FROM entries WHERE (session, name) > (?, ?) AND (session, name) <= (?, ?) AND (
        era <> ? OR started > ? OR (expires <= ? AND started < ?)
        OR NOT EXISTS (SELECT 1 FROM sessions AS s WHERE s.session = entries.session)
        OR EXISTS (
            SELECT 1 FROM floors AS f
            WHERE f.scope = 0 AND f.kind = entries.kind AND f.floor + {TOLERANCE} >= entries.started
        )
    )"""

NEXT_SESSIONS: Final = "SELECT session FROM sessions WHERE session > ? ORDER BY session LIMIT 1 OFFSET ?"

IDLE_SESSIONS: Final = """
    SELECT session, slot, id FROM sessions AS s WHERE session > ? AND session <= ? AND opened < ?
    AND NOT EXISTS (SELECT 1 FROM entries AS e WHERE e.session = s.session)"""


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring a file up to today's schema, in one transaction.

    Raises:
        StoreFailed: it is of a newer version of coatcheck, or no store at all. It is left as it is.
    """
    [application] = connection.execute("PRAGMA application_id").fetchone()
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        [tables] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application or version or tables:
            raise StoreFailed(
                f"what is at {path} is the database of another program, not a store of coatcheck: choose another path"
            )
    if version > len(STEPS):
        raise StoreFailed(
            f"the store at {path} was written by a newer coatcheck: its schema has version {version}, the newest that is known"
            f" here is {len(STEPS)}; upgrade coatcheck, or choose another path"
        )
    if version == len(STEPS):
        return
    connection.execute("BEGIN IMMEDIATE")
    for step in STEPS[version:]:
        for statement in step:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {len(STEPS)}")
    connection.execute("COMMIT")
