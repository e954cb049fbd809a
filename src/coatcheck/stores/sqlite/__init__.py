"""The store of one process in one file: SQLite, sealed, written by one thread that commits what waits as a group.

From what is called down to the bytes: `store` is what a cache holds; `operations` are put in order by `calls` and done by
the `writer`, which also tidies up (`sweep`), but for those that only read, which the `reader` does. Both see `tables` of one
`schema` in one `file`, and date what they write by `dates`. Beside a running store, `inspector`, `contents` and `upkeep` are
for people; `place` is where a service keeps its file, and `process` what a fork or the end of the process asks for.
"""

from __future__ import annotations

from coatcheck.stores.sqlite.inspector import Checked, Inspector, Revealed, SessionInfo, inspect
from coatcheck.stores.sqlite.store import SQLiteStore

__all__ = ["Checked", "Inspector", "Revealed", "SQLiteStore", "SessionInfo", "inspect"]
