"""The keys that a store seals with: a ring of which the first seals and all open.

A ring is kept in a file, or in whatever a program keeps its secrets in, as text: one key a line, the first of them
seals, and what follows a ``#`` is a comment::

    # Keys of coatcheck ...
    coatcheck-key-1:<64 hexadecimal digits>
    coatcheck-key-1:<64 hexadecimal digits>
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from coatcheck.errors import KeysUnusable

if TYPE_CHECKING:
    from collections.abc import Iterable

KEY_BYTES: Final = 32
TAG: Final = "coatcheck-key-1:"
"""What each key begins with in a text."""

HEADER: Final = "# Keys of coatcheck: the first seals, all open. Whoever has them can read the store; without them nobody can.\n"

NO_PATH: Final = "a key was given where a path is expected"
"""What is said, in place of the path, where `is_key` tells so."""

_KEY = re.compile(rf"{TAG}([0-9A-Fa-f]{{{2 * KEY_BYTES}}})")
# A key, and one whose beginning was left out: as a name, or as a word of a message. Folders are called like that, too. As a
# name it may have with it what it was copied with: quotes, the name of a variable, the next key.
_AS_NAME = re.compile(rf"{TAG}|(?<![\w.-])[0-9A-F]{{{2 * KEY_BYTES}}}(?![\w.-])[^/]*\Z", re.IGNORECASE)
_AS_WORD = re.compile(rf"{TAG}[^\s\"']+|(?<![\w/])[0-9A-F]{{{2 * KEY_BYTES}}}(?!\.?[\w/])", re.IGNORECASE)
_PRIVATE: Final = 0o600
# A file of keys has a few lines; whatever is larger is something else, and need not be read to the end.
_MAX_FILE_BYTES: Final = 64 * 1024

logger = logging.getLogger("coatcheck.stores")


class Key:
    """One secret and its public id. Shows nothing but the id.

    Attributes:
        id: eight hexadecimal digits that follow from the secret and do not tell it.
        secret: 32 bytes.
    """

    __slots__ = ("id", "secret")

    id: str
    secret: bytes

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise KeysUnusable(f"a key has {KEY_BYTES} bytes")
        self.secret = secret
        self.id = hashlib.sha256(b"coatcheck key id 1\0" + secret).digest()[:4].hex()

    def __repr__(self) -> str:
        return f"<key {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and hmac.compare_digest(self.secret, other.secret)

    def __hash__(self) -> int:
        return hash(self.id)


class KeyRing:
    """A non-empty, ordered ring of keys: the first seals, all open. Shows their ids only.

    Attributes:
        keys: in order.

    Raises:
        KeysUnusable: there is no key, or one of them twice.
    """

    __slots__ = ("keys",)

    keys: tuple[Key, ...]

    def __init__(self, keys: Iterable[Key]) -> None:
        self.keys = tuple(keys)
        if not self.keys:
            raise KeysUnusable("a key ring needs at least one key")
        if len({key.id for key in self.keys}) != len(self.keys):
            raise KeysUnusable("a key ring has a key twice")

    def __repr__(self) -> str:
        return f"<keyring {' '.join(key.id for key in self.keys)}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyRing) and self.keys == other.keys

    def __hash__(self) -> int:
        return hash(self.keys)

    @classmethod
    def drawn(cls) -> KeyRing:
        """Return a ring of one key, drawn now. What it seals is lost with it."""
        return cls((_draw(),))

    @classmethod
    def from_text(cls, text: str) -> KeyRing:
        """Return the ring that a text holds, as an environment variable may; blanks separate keys as lines do.

        Raises:
            KeysUnusable: it holds no key, or something else besides; or it is one line with a key in its comment; or it is
                no text, as of a variable that is not set.
        """
        if not isinstance(text, str):
            raise KeysUnusable(f"there is no text with keys in it, but a {type(text).__name__}")
        if len(text.splitlines()) == 1 and _KEY.search(text.partition("#")[2]):
            # Most likely the lines of a file in one: what is meant to be used must not be left out without a word.
            raise KeysUnusable(
                "the keys are in one line, and one of them is behind a #, where all is a comment: leave out the comment"
            )
        return cls(_parsed(text, "the keys"))

    @classmethod
    def read(cls, path: Path | str) -> KeyRing:
        """Return the ring that a file holds.

        Raises:
            KeysUnusable: there is no such file, others may read it, or it is not of the format.
        """
        place = _checked(path)
        content = _content(place)
        if content is None:
            raise KeysUnusable(
                f"there is no file of keys at {place}; `coatcheck keys new --keys {place}` makes one"
            )
        return cls(_parsed(content.decode("ascii", "replace"), f"the file of keys {place}"))

    @classmethod
    def at(cls, path: Path | str) -> KeyRing:
        """Return the ring that a file holds; if there is no file yet, make one, and log where, once.

        Of several processes that find none at the same time one writes, and all return what it wrote.

        Raises:
            KeysUnusable: as for `read`, or no file can be made there.
        """
        place = _checked(path)
        if _content(place) is None:
            with contextlib.suppress(FileExistsError):
                _make_folder(place)
                drawn = cls.drawn()
                _place(place, drawn.text(), new=True)
                logger.warning(
                    "made new keys in %s: keep them, nobody can read without them what they seal",
                    place,
                )
                return drawn
        return cls.read(place)

    def text(self) -> str:
        """Return the ring as `from_text` reads it, **secrets and all**."""
        return HEADER + "".join(f"{TAG}{key.secret.hex()}\n" for key in self.keys)

    def write(self, path: Path | str, *, new: bool = False) -> None:
        """Write the ring to a file that nobody else may read.

        Whoever reads it meanwhile gets the old one or the new one, whole.

        Args:
            path: where; its folder is made if there is none.
            new: leave a file that is there already as it is.

        Raises:
            KeysUnusable: it cannot be written, or is *new* and there is one already.
        """
        place = _checked(path)
        _make_folder(place)
        exists = False
        try:
            _place(place, self.text(), new=new)
        except FileExistsError:
            exists = True
        if exists:
            raise KeysUnusable(f"there is something at {place} already; it stays as it is")

    def rotated(self, *, keep: int = 2) -> KeyRing:
        """Return a ring with a new first key.

        Args:
            keep: how many keys it has in all. What was sealed with one that is dropped is lost.
        """
        if keep < 1:
            raise ValueError(f"a key ring keeps at least one key, not {keep}")
        return KeyRing((_draw(), *self.keys[: keep - 1]))


def is_key(path: Path | str) -> bool:
    """Tell whether what should be a path is a key, or has one in it: then it must not be shown, nor become a file."""
    return _AS_NAME.search(str(path)) is not None


def without_keys(text: str) -> str:
    """Return a text, such as a message that quotes what was given, without the keys in it."""
    return _AS_WORD.sub("…", text)


def _draw() -> Key:
    return Key(secrets.token_bytes(KEY_BYTES))


def _parsed(text: str, what: str) -> list[Key]:
    """Return the keys in a text; neither they nor what stands in their place is shown."""
    keys = []
    for number, line in enumerate(text.splitlines(), start=1):
        for word in line.partition("#")[0].split():
            found = _KEY.fullmatch(word)
            if found is None:
                raise KeysUnusable(
                    f"line {number} of {what} is no key: {TAG} and {2 * KEY_BYTES} hexadecimal digits"
                )
            keys.append(Key(bytes.fromhex(found[1])))
    if not keys:
        raise KeysUnusable(f"{what} cannot be used: there is no key")
    return keys


def _checked(path: Path | str) -> Path:
    # Who takes a path for the key itself must not find the key in a log, or in the name of a file.
    if is_key(path):
        raise KeysUnusable("this takes the path of a file of keys, not a key")
    return Path(path)


def _content(path: Path) -> bytes | None:
    """Return the bytes of a file that nobody else may read, None if there is no such file."""
    try:
        # Opened first and asked afterwards, so that what was asked about is what is read. A pipe must not hold us up.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        problem = f"cannot be read ({_reason(error)})"
    else:
        try:
            mode = os.fstat(file).st_mode
            if not stat.S_ISREG(mode):
                problem = "is no file"
            elif stat.S_IMODE(mode) & ~_PRIVATE:
                problem = f"is open to others (mode {stat.S_IMODE(mode):04o}): make its mode 0600, and rotate the keys"
            elif len(content := os.read(file, _MAX_FILE_BYTES + 1)) > _MAX_FILE_BYTES:
                problem = "is too large"
            else:
                return content
        finally:
            os.close(file)
    raise KeysUnusable(f"the file of keys {path} {problem}")


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        problem = _reason(error)
    else:
        return
    raise KeysUnusable(f"the folder of the keys {path} cannot be made ({problem})")


def _place(path: Path, text: str, *, new: bool) -> None:
    """Write a private file under another name and let it appear, complete and on the disk, under its own.

    Raises:
        FileExistsError: it is *new*, and there is one already.
        KeysUnusable: it cannot be written.
    """
    # What a link points to is replaced, not the link.
    goal = Path(os.path.realpath(path))
    draft = goal.with_name(f".{goal.name}.{secrets.token_hex(8)}")
    try:
        _write_private(draft, text)
        # Unlike a rename, a link never takes the place of another file.
        (os.link if new else os.replace)(draft, goal)
        _sync_folder(goal.parent)
    except FileExistsError:
        raise
    except (OSError, ValueError) as error:
        problem = _reason(error)
    else:
        return
    finally:
        with contextlib.suppress(OSError, ValueError):
            draft.unlink()
    raise KeysUnusable(f"the file of keys {path} cannot be written ({problem})")


def _write_private(path: Path, text: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
    with os.fdopen(file, "w", encoding="ascii") as opened:
        # Whatever the umask made of it.
        os.fchmod(file, _PRIVATE)
        opened.write(text)
        opened.flush()
        os.fsync(file)


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _reason(error: OSError | ValueError) -> str:
    return (isinstance(error, OSError) and error.strerror) or "no usable path"
