"""A look at the place that a SQLite store is to have, before anything is touched: a wrong path must change nothing.

What may be written to, moved aside or made private is a file that is provably ours:

* none yet, or an empty one, or a SQLite database with nothing in it;
* a SQLite database with our application id, whatever else is wrong with it;
* a damaged one whose id can no longer be read, beside whose path lies a lock with our `MARK`. It is put there when a store
  is begun or opened, and stays. That a ``.lock`` is there is no proof: other programs name theirs the same way.

Whatever else is there is left as it is. So is a store that has several names by hard links.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
from pathlib import Path
from typing import Final

from coatcheck.errors import StoreFailed
from coatcheck.stores.key_ring import NO_PATH, is_key
from coatcheck.stores.sqlite.process import no_fork
from coatcheck.stores.sqlite.schema import APPLICATION_ID

MARK: Final = b"coatcheck store\n"
"""What a store's lock holds."""

_NO_FILE: Final = ":memory:"
"""What SQLite itself, and those who know it, call a database that is no file."""

_UNREADABLE: Final = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}


def real_path(path: Path | str) -> Path:
    """Return where a file is, whatever links lead there.

    Raises:
        StoreFailed: no file can be there.
    """
    try:
        return Path(os.path.realpath(path))
    except ValueError:
        pass
    raise StoreFailed(
        "there can be no store at this path: it has a character in it, such as NUL, that no path has"
    )


def check_place(path: Path) -> None:
    """Return if a store may be at *path*. Nothing is made or changed.

    Raises:
        StoreFailed: what is there, or where its lock is to be, is not a store's.
    """
    present = exists(path)
    if path.name == _NO_FILE:
        raise StoreFailed(
            f"there can be no store at {path}: this one is a file; without a store sessions are in memory alone, and for tests"
            " there is MemoryStore in coatcheck.testing"
        )
    lock = beside(path, ".lock")
    if _mode(lock, path) is not None and _content(lock, path) not in {b"", MARK}:
        raise StoreFailed(
            f"there can be no store at {path}: {lock} is not the lock of a store; it is left as it is"
        )
    if present and size(path) > 0 and not _is_ours(path) and _content(lock, path) != MARK:
        raise StoreFailed(
            f"what is at {path} is not a store of coatcheck, nor a SQLite file that could be one: it is left as it is;"
            " choose another path"
        )
    status = status_of(path)
    if status is not None and status.st_nlink > 1:
        # Its lock and its log are found by its name: who has it open by another would not be met.
        raise StoreFailed(
            f"the store at {path} has more than one name, by hard links: keep one of them, or make a copy in place of a link"
        )


def exists(path: Path) -> bool:
    """Tell whether there is a file.

    Raises:
        StoreFailed: there is something else, or the path is a key, which is not shown.
    """
    if is_key(path):
        raise StoreFailed(NO_PATH)
    mode = _mode(path, path)
    if mode is not None and not stat.S_ISREG(mode):
        raise StoreFailed(
            f"there can be no store at {path}: it is {'a folder, ' * stat.S_ISDIR(mode)}not a file"
        )
    return mode is not None


def unwritable(path: Path) -> str | None:
    """Return why a file cannot be written and nothing be put beside it; None if it is not known that it cannot."""
    for each, kind in ((path.parent, os.W_OK | os.X_OK), (path, os.R_OK | os.W_OK)):
        if each.exists() and not os.access(each, kind):
            with contextlib.suppress(OSError):
                if os.statvfs(each).f_flag & os.ST_RDONLY:
                    return os.strerror(errno.EROFS)
            denied = os.strerror(errno.EACCES)
            return denied if each == path else f"{denied}: the folder {each}"
    return None


def reason_of(error: OSError | ValueError, path: Path) -> str:
    """Return why something cannot be done, and to what, unless that is *path* itself."""
    if not isinstance(error, OSError) or error.strerror is None:
        return "no usable path"
    met = error.filename
    return (
        error.strerror
        if met is None or os.fsdecode(met) == str(path)
        else f"{error.strerror}: {os.fsdecode(met)}"
    )


def beside(path: Path, suffix: str) -> Path:
    """Return what lies beside a file; with no suffix, the file."""
    return path.with_name(path.name + suffix)


def status_of(path: Path) -> os.stat_result | None:
    """Return what the system knows of a file; None if there is none."""
    try:
        return path.stat()
    except OSError:
        return None


def size(path: Path) -> int:
    """Return the bytes of a file; 0 if there is none."""
    status = status_of(path)
    return 0 if status is None else status.st_size


def _is_ours(path: Path) -> bool:
    """Tell whether a file is a store, or a database with nothing in it; not, if it cannot be read as one.

    Raises:
        StoreFailed: it is another program's database, or cannot be read.
    """
    if size(path) == 1:
        # SQLite takes it for an empty file.
        return False
    failure = None
    try:
        # By SQLite: had this process the file open, too, closing it by itself would take the locks from it. Immutable: no
        # log is read and nothing put beside it.
        with (
            no_fork,
            contextlib.closing(
                sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
            ) as connection,
        ):
            # So that it does not matter whether the file is as long as it says.
            connection.execute("PRAGMA writable_schema = ON")
            [application] = connection.execute("PRAGMA application_id").fetchone()
            if application == APPLICATION_ID:
                return True
            [version] = connection.execute("PRAGMA user_version").fetchone()
            [tables] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        failure = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if failure in _UNREADABLE:
        return False
    if failure is not None:
        raise StoreFailed(f"there can be no store at {path}: {unwritable(path) or 'it cannot be read'}")
    # What another program has just begun may be in its log only.
    if application or version or tables or size(beside(path, "-wal")) or size(beside(path, "-journal")):
        raise StoreFailed(
            f"what is at {path} is the database of another program, not a store of coatcheck: choose another path"
        )
    return True


def _mode(path: Path, store: Path) -> int | None:
    reason = None
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        # Where its folder cannot be made is found out when it is.
        return None
    except NotADirectoryError:
        reason = f"{next(each for each in path.parents if each.exists())} is no folder"
    except (OSError, ValueError) as error:
        reason = reason_of(error, store)
    raise StoreFailed(f"there can be no store at {store}: {reason}")


def _content(lock: Path, store: Path) -> bytes | None:
    """Return what is in a lock, or the beginning of it; None if it cannot be one, or there is none.

    Raises:
        StoreFailed: it may not be read.
    """
    reason = None
    try:
        file = os.open(lock, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as error:
        reason = reason_of(error, store)
    except OSError:
        return None
    if reason is not None:
        raise StoreFailed(f"there can be no store at {store}: {reason}")
    try:
        return os.read(file, len(MARK) + 1) if stat.S_ISREG(os.fstat(file).st_mode) else None
    finally:
        os.close(file)
