"""What lies beneath memory: sealed at rest, in a file or shared between processes.

::

    from coatcheck.stores import KeyRing, SQLiteStore

    cache = SessionCache(catalog, connect=connect, store=SQLiteStore("sessions.sqlite"))

`SQLiteStore` needs ``coatcheck[crypto]``. Each is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coatcheck.stores.key_provider import KeyProvider as KeyProvider
    from coatcheck.stores.key_ring import KeyRing as KeyRing
    from coatcheck.stores.sqlite import SQLiteStore as SQLiteStore

# Not `SQLiteStore`: `from coatcheck.stores import *` must work without the extra.
__all__ = ["KeyProvider", "KeyRing"]


def __getattr__(name: str) -> object:
    if name == "KeyProvider":
        from coatcheck.stores.key_provider import KeyProvider  # noqa: PLC0415

        return KeyProvider
    if name == "KeyRing":
        from coatcheck.stores.key_ring import KeyRing  # noqa: PLC0415

        return KeyRing
    if name == "SQLiteStore":
        from coatcheck.stores.sqlite import SQLiteStore  # noqa: PLC0415

        return SQLiteStore
    raise AttributeError(f"module 'coatcheck.stores' has no attribute {name!r}")
