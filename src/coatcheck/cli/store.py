"""``coatcheck store``: whether what is stored is sound, and giving back the room that it no longer needs."""

import sys
from typing import TYPE_CHECKING

import msgspec
from cyclopts import App

from coatcheck.cli.columns import ENTRIES, columns, counted, printable
from coatcheck.cli.place import CLEARED, Config, Json, Keys, Place, Store, alone
from coatcheck.errors import StoreFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coatcheck.stores.sqlite.inspector import Checked


def check(*, json: Json = False, store: Store = None, keys: Keys = None, config: Config = None) -> int:
    """Read the whole store, and tell whether it is sound and how many of its entries open. Nothing is changed.

    The exit code is 1 if it is damaged, or if some do not open. Without keys none is opened.

    A program may have the store open meanwhile; what it clears is not known to be off the disk until this has ended.
    """
    from coatcheck.stores.sqlite.file import DAMAGED, Damaged, damage_at  # noqa: PLC0415 - slow to import
    from coatcheck.stores.sqlite.inspector import Checked, inspect  # noqa: PLC0415 - with cryptography

    place = Place(store=store, keys=keys, config=config)
    ring = place.ring(needed=False)
    size = None
    try:
        with inspect(place.file(), keys=ring) as inspector:
            size = None if (checked := inspector.check()).problems else inspector.size()
    except Damaged:
        checked = Checked(problems=(DAMAGED,), sessions=0, opened=None, rejected=None)
    entries = None if size is None else size.entries
    if json:
        shown = {"sound": not checked.problems, "entries": entries, **msgspec.to_builtins(checked)}
        print(msgspec.json.encode(shown).decode())
    else:
        # That it is damaged need not be said twice.
        _show(checked, entries, [each for each in checked.problems if each != DAMAGED])
    if checked.rejected:
        return place.unopened(
            checked.rejected, of=counted((checked.opened or 0) + checked.rejected, *ENTRIES)
        )
    if checked.problems:
        sys.stdout.flush()
        raise StoreFailed(damage_at(place.file().resolve()))
    return 0


def compact(*, json: Json = False, store: Store = None, config: Config = None) -> int:
    """Remove what has expired, give back the room, and print the bytes of the file before and after.

    Not while a program has the store open.
    """
    from coatcheck.stores.sqlite.upkeep import upkeep  # noqa: PLC0415 - with cryptography, slow to import

    path = Place(store=store, config=config).file()
    with alone(path, "compact it"), upkeep(path) as held:
        before, after = held.compact()
    if json:
        print(msgspec.json.encode({"before": before, "after": after}).decode())
    else:
        columns([["before", f"{before:,} bytes"], ["after", f"{after:,} bytes"]], right=[1])
    return 0


def store() -> App:
    """Return the parser of these commands."""
    app = App(name="store", help="Check the file that sessions are stored in, or make it smaller.")
    app.command(check)
    app.command(compact)
    return app


def _show(checked: "Checked", entries: int | None, problems: "Sequence[str]") -> None:
    rows = [["file", "damaged" if checked.problems else "sound"]]
    if entries is not None:
        rows.append(["sessions", f"{checked.sessions:,}"])
        if checked.cleared:
            rows.append([CLEARED, f"{checked.cleared:,}"])
        rows += [["entries", f"{entries:,}"]]
        if checked.opened is None or checked.rejected is None:
            rows.append(["open", "not tried: there are no keys"])
        else:
            rows += [["open", f"{checked.opened:,}"], ["do not open", f"{checked.rejected:,}"]]
    columns(rows)
    for problem in problems:
        print(printable(problem))
