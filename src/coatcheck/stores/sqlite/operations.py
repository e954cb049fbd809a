"""What can be asked of the writer of a SQLite store: each operation does its part of a transaction and has an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from coatcheck.engine.store import StoredSession, Written
from coatcheck.errors import CoatcheckError, StoreFailed
from coatcheck.stores.sqlite.calls import Call
from coatcheck.stores.sqlite.schema import (
    BURY_ENTRY,
    DELETE_KIND,
    FUTURE,
    PUT_ENTRIES,
    PUT_ROW,
    RAISE_COMMON_FLOOR,
    RAISE_FLOOR,
)
from coatcheck.stores.sqlite.tables import fetch, unseal
from coatcheck.stores.sqlite.tombstones import Grave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from coatcheck.engine.store import Owner, Record
    from coatcheck.stores.seal import Seal
    from coatcheck.stores.sqlite.tables import Fetched, Tables
    from coatcheck.stores.sqlite.tombstones import Stone

T = TypeVar("T")

# Puts that one statement takes, so that few of its sizes have to be prepared and kept.
_CHUNKS: Final = (32, 8, 1)


class Operation(Call[T]):
    """Something to be done in a transaction that others share.

    Attributes:
        synced: it is on the disk before it is answered.
        erases: so is the end of what it removed: nothing of it is left in the log.
        applied: of one that erases, whether it has been committed.
    """

    __slots__ = ("applied",)
    synced: ClassVar[bool] = False
    erases: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.applied = False

    def run(self, tables: Tables) -> None:
        """Do it and note the answer. What SQLite raises is the whole transaction's; it may be run again."""
        try:
            self.succeed(self.apply(tables))
        except CoatcheckError as error:
            self.fail(error if isinstance(error, StoreFailed) else StoreFailed(str(error)))

    def apply(self, tables: Tables) -> T:
        """Do it and return the answer."""
        raise NotImplementedError

    def stones(self, seal: Seal) -> Iterable[Stone]:  # noqa: ARG002 - what most have none of
        """Return what is noted, so that it is done after a restart, if it cannot be done now."""
        return ()


class Open(Operation[StoredSession]):
    """Bring an owner's session. The reader answers it, unless there is something to be written: then the writer does.

    Attributes:
        owner: whose.
        session: what was found.
        rejected: what of it did not open and has to go: the session's number and the names.
    """

    __slots__ = ("owner", "rejected", "session")

    def __init__(self, owner: Owner) -> None:
        super().__init__()
        self.owner = owner
        self.session: StoredSession | None = None
        self.rejected: tuple[int, list[object]] | None = None

    def apply(self, tables: Tables) -> StoredSession:
        """Make the session, or remove what did not open."""
        if self.session is None:
            # Somebody may have made it meanwhile.
            fetched = fetch(tables.connection, tables.seal, tables.dates, tables.tombstones, self.owner)
            if fetched is None:
                return self._begin(tables)
            self.take(tables.seal, fetched)
        assert self.session is not None
        if self.rejected is not None:
            number, names = self.rejected
            for name in names:
                tables.connection.execute(
                    "DELETE FROM entries WHERE session = ? AND name = ?", (number, name)
                )
        return self.session

    def take(self, seal: Seal, fetched: Fetched) -> bool:
        """Open what was found; tell whether that is the answer, with nothing left to be done."""
        self.session, names = unseal(seal, self.owner, fetched)
        self.rejected = (fetched.number, names) if names else None
        if names:
            return False
        self.succeed(self.session)
        return True

    def _begin(self, tables: Tables) -> StoredSession:
        # A row that is damaged may be in the way; nothing under it can be opened.
        filed = (each.digest for each in tables.seal.owners(self.owner))
        lost = tables.end(tables.sessions_of("owner", filed))
        return StoredSession(tables.begin(self.owner), (), lost)


class Put(Operation[Written]):
    """Write an entry. `run_puts` does it, for many at once."""

    __slots__ = ("_sealed", "expires", "owner", "record", "session", "started")

    def __init__(self, owner: Owner, session: bytes, record: Record, started: float, expires: float) -> None:
        super().__init__()
        self.owner = owner
        self.session = session
        self.record = record
        self.started = started
        self.expires = expires
        self._sealed: tuple[Any, ...] | None = None

    def row(self, tables: Tables) -> tuple[Any, ...] | None:
        """Return what is written; None when the answer is known without."""
        if self._sealed is not None:
            return self._sealed
        session = tables.session(self.owner, self.session)
        if session is None:
            self.succeed(Written.ENDED)
            return None
        number, key = session
        record = self.record
        try:
            entry = tables.seal.seal(
                self.owner, key, record.resource, record.arguments, record.body, self.started
            )
        except CoatcheckError as error:
            self.fail(error if isinstance(error, StoreFailed) else StoreFailed(str(error)))
            return None
        self._sealed = (
            number, key.id, entry.name, entry.kind, entry.started, self.expires, tables.dates.era, entry.sealed
        )  # fmt: skip
        return self._sealed


class Delete(Operation[Written]):
    """Remove one entry, or all of a resource."""

    __slots__ = ("arguments", "floor", "owner", "resource", "session")
    # What was revoked must not come back by a power cut either.
    synced = True

    def __init__(
        self, owner: Owner, session: bytes, resource: str, arguments: bytes | None, floor: float
    ) -> None:
        super().__init__()
        self.owner = owner
        self.session = session
        self.resource = resource
        self.arguments = arguments
        self.floor = floor

    def apply(self, tables: Tables) -> Written:
        """Remove what began before the floor, and set it."""
        session = tables.session(self.owner, self.session)
        if session is None:
            return Written.ENDED
        number, key = session
        kind = tables.seal.kind(self.owner, key, self.resource)
        execute = tables.connection.execute
        if self.arguments is None:
            if execute(RAISE_FLOOR, (kind, self.floor, number, key.id)).rowcount == 0:
                return Written.ENDED
            execute(DELETE_KIND, (number, kind, self.floor))
            return Written.APPLIED
        name = tables.seal.name(self.owner, key, self.resource, self.arguments)
        future = tables.dates.now() + FUTURE
        buried = execute(
            BURY_ENTRY, (name, kind, self.floor, tables.dates.era, number, key.id, future)
        ).rowcount
        if buried or tables.is_current(number, key.id):
            return Written.APPLIED
        return Written.ENDED


class Forget(Operation[None]):
    """Raise the floor of a resource for every owner of a catalog. What lies below is swept."""

    __slots__ = ("catalog", "floor", "resource")
    synced = True

    def __init__(self, catalog: str, resource: str, floor: float) -> None:
        super().__init__()
        self.catalog = catalog
        self.resource = resource
        self.floor = floor

    def apply(self, tables: Tables) -> None:
        """Set the floor."""
        for kind in tables.seal.kinds(self.catalog, self.resource):
            tables.connection.execute(RAISE_COMMON_FLOOR, (kind.digest, self.floor))


class Clear(Operation[None]):
    """End an owner's session."""

    __slots__ = ("owner",)
    synced = True
    erases = True

    def __init__(self, owner: Owner) -> None:
        super().__init__()
        self.owner = owner

    def apply(self, tables: Tables) -> None:
        """Remove all there is of it."""
        filed = (each.digest for each in tables.seal.owners(self.owner))
        tables.end(tables.sessions_of("owner", filed))

    def stones(self, seal: Seal) -> Iterable[Stone]:
        """Return that the owner's session is to be ended."""
        return [(Grave.OWNER, each.digest) for each in seal.owners(self.owner)]


class ClearAll(Operation[None]):
    """End every session of a catalog. Their entries, which nobody can open any more, are swept."""

    __slots__ = ("catalog",)
    synced = True
    erases = True

    def __init__(self, catalog: str) -> None:
        super().__init__()
        self.catalog = catalog

    def apply(self, tables: Tables) -> None:
        """Remove the sessions' rows and salts."""
        filed = (each.digest for each in tables.seal.catalogs(self.catalog))
        tables.end(tables.sessions_of("catalog", filed), entries=False)
        tables.seal.forget_all()

    def stones(self, seal: Seal) -> Iterable[Stone]:
        """Return that all of the catalog's are."""
        return [(Grave.CATALOG, each.digest) for each in seal.catalogs(self.catalog)]


class Chore:
    """Something that the writer does between transactions.

    Attributes:
        work: what.
        call: who waits for it, if anybody does.
    """

    __slots__ = ("call", "work")

    def __init__(self, work: Callable[[], Any], call: Call[Any] | None = None) -> None:
        self.work = work
        self.call = call


def end_buried(tables: Tables, stones: Iterable[Stone]) -> None:
    """End the sessions that tombstones are of. Their entries, which nobody can open any more, are swept."""
    columns = {Grave.OWNER: "owner", Grave.CATALOG: "catalog"}
    for grave, digest in stones:
        ended = (
            tables.all_sessions() if grave is Grave.EVERYONE else tables.sessions_of(columns[grave], [digest])
        )
        tables.end(ended, entries=False)


def run_puts(tables: Tables, puts: Sequence[Put]) -> int:
    """Write entries, in order, with few statements; return the bytes of what is new.

    What one statement takes is sealed right before it: while SQLite works the event loop has its turn.
    """
    ready: list[tuple[Put, tuple[Any, ...]]] = []
    size = 0
    future = tables.dates.now() + FUTURE
    for put in puts:
        row = put.row(tables)
        if row is not None:
            ready.append((put, row))
            size += len(row[-1])
            if len(ready) == _CHUNKS[0]:
                _run_chunk(tables, ready, future)
                ready = []
    done = 0
    for chunk in _CHUNKS:
        while len(ready) - done >= chunk:
            _run_chunk(tables, ready[done : done + chunk], future)
            done += chunk
    return size


def _run_chunk(tables: Tables, chunk: list[tuple[Put, tuple[Any, ...]]], future: float) -> None:
    values = [value for _, row in chunk for value in row]
    values.append(future)
    written = tables.connection.execute(_PUT_CHUNKS[len(chunk)], values).rowcount
    if written == len(chunk):
        for put, _ in chunk:
            put.succeed(Written.APPLIED)
    elif len(chunk) == 1:
        [(put, row)] = chunk
        put.succeed(Written.OVERTAKEN if tables.is_current(row[0], row[1]) else Written.ENDED)
    else:
        # Some were refused. An entry may be written twice: so each is asked again by itself.
        for each in chunk:
            _run_chunk(tables, [each], future)


_PUT_CHUNKS: Final = {size: PUT_ENTRIES.format(rows=", ".join([PUT_ROW] * size)) for size in _CHUNKS}
