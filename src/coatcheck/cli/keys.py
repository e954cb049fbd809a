"""``coatcheck keys``: the file of keys that a store seals with."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from coatcheck.cli.mistake import Mistake
from coatcheck.stores.key_ring import KeyRing

if TYPE_CHECKING:
    from coatcheck.settings import Settings

File = Annotated[
    Path | None,
    Parameter(
        name="--keys",
        help="The file of keys, instead of the one that COATCHECK_KEYS or the settings name.",
    ),
]


def new(*, keys: File = None) -> int:
    """Make a file with one new key. One that is there already stays as it is.

    What is in such a file may be given as COATCHECK_KEYS_TEXT, in place of the file.
    """
    path = _path(keys)
    ring = KeyRing.drawn()
    ring.write(path, new=True)
    print(f"made key {ring.keys[0].id} in {path}")
    return 0


def show(*, keys: File = None) -> int:
    """List the ids of the keys, of those in COATCHECK_KEYS_TEXT if it is set, and what each is for.

    No secret is shown.
    """
    given = None if keys is not None else _settings().given_keys()
    first, *others = (given or KeyRing.read(_path(keys))).keys
    print(f"{first.id}  seals and opens")
    for key in others:
        print(f"{key.id}  opens")
    return 0


def rotate(
    *,
    keep: Annotated[
        int,
        Parameter(
            help="How many keys there are then, the new one included.",
            validator=Number(gte=1),
        ),
    ] = 2,
    keys: File = None,
) -> int:
    """Add a new key, which seals from now on; the kept older ones still open.

    A session stays with the key that it began under. When that key is dropped, it is fetched anew: so don't rotate
    twice within a ttl, or let --keep be more than 2.

    Programs use the new key when they are started the next time.
    """
    path = _path(keys)
    old = KeyRing.read(path)
    ring = old.rotated(keep=keep)
    ring.write(path)
    print(f"{ring.keys[0].id}  new: seals and opens")
    for key in ring.keys[1:]:
        print(f"{key.id}  kept: opens")
    for key in old.keys[len(ring.keys) - 1 :]:
        print(f"{key.id}  dropped: sessions that began under it are fetched anew")
    return 0


def keys() -> App:
    """Return the parser of these commands."""
    app = App(name="keys", help="Make, list or rotate the keys that what is stored is sealed with.")
    app.command(new)
    app.command(show, name="list")
    app.command(rotate)
    return app


def _path(given: Path | None) -> Path:
    if given is not None:
        return given
    settings = _settings()
    if settings.keys_text is not None:
        raise Mistake("the keys are in COATCHECK_KEYS_TEXT, not in a file: --keys names a file for this")
    return settings.keys_file()


def _settings() -> "Settings":
    from coatcheck.settings import load  # noqa: PLC0415 - with pydantic, slow to import

    return load()
