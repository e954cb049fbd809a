"""``coatcheck sessions``: what is stored, by pseudonyms, and its end."""

import re
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter

from coatcheck.cli.columns import ENTRIES, columns, counted, printable, span
from coatcheck.cli.mistake import Mistake
from coatcheck.cli.place import CLEARED, Config, Json, Keys, Place, Store, alone
from coatcheck.cli.stored_key import read_back
from coatcheck.errors import StoreFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coatcheck.engine.store import Owner
    from coatcheck.stores.sqlite.contents import SessionContents, StoredEntry
    from coatcheck.stores.sqlite.inspector import SessionInfo

_SESSIONS: Final = ("session", "sessions")

Pseudonym = Annotated[str | None, Parameter(help="Which session: as `coatcheck sessions list` calls it.")]
User = Annotated[
    str | None,
    Parameter(name="--user", help="Whose session, in place of a pseudonym. Needs the keys."),
]


def list_(
    *,
    reveal: Annotated[
        bool,
        Parameter(help="Name the users, too. Needs the keys.", negative="", show_default=False),
    ] = False,
    json: Json = False,
    store: Store = None,
    keys: Keys = None,
    config: Config = None,
) -> int:
    """List the stored sessions, each under a pseudonym, the oldest first.

    When a session was opened is renewed at most once an hour; those opened longest ago go first when room is needed.

    One that is cleared, where that could not be applied to the file yet, is marked so.

    A program may have the store open meanwhile.
    """
    from coatcheck.stores.sqlite.contents import look  # noqa: PLC0415 - with cryptography, slow to import

    place = Place(store=store, keys=keys, config=config)
    # What is named must be usable, whether or not it is needed.
    ring = place.ring(needed=True) if reveal or keys is not None else None
    with look(place.file(), keys=ring) as contents:
        infos = list(contents.sessions())
        owners = dict(contents.owners()) if reveal else None
    if json:
        _print({"sessions": [_listed(info, owners) for info in infos]})
    else:
        _show_list(infos, owners)
    unopened = 0 if owners is None else sum(owners.get(info.owner) is None for info in infos)
    return place.unopened(unopened, of=counted(len(infos), *_SESSIONS)) if unopened else 0


def show(
    pseudonym: Pseudonym = None,
    /,
    *,
    user: User = None,
    reveal: Annotated[
        bool,
        Parameter(
            help="Show user, arguments and values, too. Needs the keys.", negative="", show_default=False
        ),
    ] = False,
    json: Json = False,
    store: Store = None,
    keys: Keys = None,
    config: Config = None,
) -> int:
    """Show what is stored in one session: age, remaining life (with the grace for an outage) and size of each entry.

    What each is of is shown when there are keys. Of a session that is cleared, where that could not be applied to the file
    yet, no entry is shown. A program may have the store open meanwhile.
    """
    from coatcheck.stores.sqlite.contents import look  # noqa: PLC0415 - with cryptography, slow to import

    if (pseudonym is None) == (user is None):
        raise Mistake(f"this takes {'' if user is None else 'only one of '}a pseudonym or --user")
    wanted = [] if pseudonym is None else [_checked(pseudonym)]
    place = Place(store=store, keys=keys, config=config)
    ring = place.ring(needed=reveal or user is not None)
    with look(place.file(), keys=ring) as contents:
        if user is not None:
            wanted, unopened = contents.sessions_of(user)
            if not wanted:
                raise StoreFailed(_nothing_of_them(unopened, place))
        found = [each for each in map(contents.session, wanted) if each is not None]
    if not found:
        raise StoreFailed("there is no such session")
    if json:
        _print({"sessions": [_session(each, reveal=reveal) for each in found]})
    else:
        for each in found:
            _show_session(each, reveal=reveal)
    entries = [entry for each in found for entry in each.entries]
    unopened = 0 if ring is None else sum(entry.contents is None for entry in entries)
    return place.unopened(unopened, of=counted(len(entries), *ENTRIES)) if unopened else 0


def clear(
    pseudonym: Pseudonym = None,
    /,
    *,
    user: User = None,
    everyone: Annotated[
        bool, Parameter(name="--all", help="Every session.", negative="", show_default=False)
    ] = False,
    store: Store = None,
    keys: Keys = None,
    config: Config = None,
) -> int:
    """End a session, or all, for good: what may be left of it on the disk can be opened by nobody.

    Not while a program has the store open: then that program must do it, as by `session.clear()`.
    """
    from coatcheck.stores.sqlite.contents import look  # noqa: PLC0415 - with cryptography, slow to import
    from coatcheck.stores.sqlite.upkeep import upkeep  # noqa: PLC0415 - the same

    given = (pseudonym is not None) + (user is not None) + everyone
    if given != 1:
        raise Mistake(f"this takes {'only one of ' * (given > 1)}a pseudonym, --user or --all")
    wanted = None if pseudonym is None else [_checked(pseudonym)]
    place = Place(store=store, keys=keys, config=config)
    ring = place.ring(needed=True) if user is not None or keys is not None else None
    unopened = 0
    path = place.file()
    with alone(path, "clear it"), upkeep(path) as held:
        if user is not None:
            # Nobody else writes it now: who they are is the same a moment later.
            with look(path, keys=ring) as contents:
                wanted, unopened = contents.sessions_of(user)
        ended = held.clear(wanted)
    if not ended and pseudonym is not None:
        raise StoreFailed("there is no such session")
    if not ended and unopened:
        raise StoreFailed(_nothing_of_them(unopened, place))
    print(f"cleared {counted(ended, *_SESSIONS)}")
    return 0


def sessions() -> App:
    """Return the parser of these commands."""
    app = App(name="sessions", help="List, show or clear the sessions that are stored.")
    app.command(list_, name="list")
    # The parser takes what may be left out for optional: it is, for something in its place.
    app.command(show, usage="Usage: coatcheck sessions show [OPTIONS] PSEUDONYM | --user USER")
    app.command(clear, usage="Usage: coatcheck sessions clear [OPTIONS] PSEUDONYM | --user USER | --all")
    return app


def _checked(pseudonym: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{16}", pseudonym):
        raise Mistake("a pseudonym has 16 hexadecimal digits; `coatcheck sessions list` shows them")
    return pseudonym.lower()


def _nothing_of_them(unopened: int, place: Place) -> str:
    nothing = "there is no session of this user"
    return (
        f"{nothing} that opens: {counted(unopened, 'does', 'do')} not {place.tried()}"
        if unopened
        else nothing
    )


def _print(shown: object) -> None:
    print(msgspec.json.encode(shown).decode())


def _listed(info: "SessionInfo", owners: "Mapping[str, Owner | None] | None") -> dict[str, Any]:
    listed = {
        "pseudonym": info.owner,
        "opened_age": info.opened_age,
        "newest_age": info.newest_age,
        "entries": info.entries,
        "bytes": info.bytes,
        "cleared": info.cleared,
    }
    return listed if owners is None else listed | _owner(owners.get(info.owner))


def _owner(owner: "Owner | None") -> dict[str, Any]:
    return {
        "catalog": None if owner is None else owner.catalog,
        "user": None if owner is None else owner.user,
    }


def _show_list(infos: "list[SessionInfo]", owners: "Mapping[str, Owner | None] | None") -> None:
    rows = [["session", "opened", "newest entry", "entries", "bytes"]]
    rows += [
        [info.owner, span(info.opened_age), span(info.newest_age), f"{info.entries:,}", f"{info.bytes:,}"]
        for info in infos
    ]
    if owners is not None:
        named = [owners.get(info.owner) for info in infos]
        ends = [["catalog", "user"]]
        ends += [["?", "?"] if each is None else list(map(printable, each)) for each in named]
        rows = [row + end for row, end in zip(rows, ends, strict=True)]
    if any(info.cleared for info in infos):
        marks = ["", *(CLEARED * info.cleared for info in infos)]
        rows = [[*row, mark] for row, mark in zip(rows, marks, strict=True)]
    columns(rows, right=range(1, 5))


def _session(session: "SessionContents", *, reveal: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "pseudonym": session.pseudonym,
        "opened_age": session.opened_age,
        "cleared": session.cleared,
    }
    if reveal and not session.cleared:
        shown |= _owner(session.owner)
    return shown | {"entries": [_entry(each, reveal=reveal) for each in session.entries]}


def _entry(entry: "StoredEntry", *, reveal: bool) -> dict[str, Any]:
    contents = entry.contents
    shown: dict[str, Any] = {
        "resource": None if contents is None else contents.resource,
        "age": entry.age,
        "kept_for": entry.kept_for,
        "bytes": entry.bytes,
    }
    if reveal and contents is not None:
        authority, key = read_back(contents.resource, contents.arguments)
        shown |= {"key": key, "authority": authority, "value": _value(contents.body)}
    return shown


def _value(body: bytes) -> msgspec.Raw | None:
    """Return a body, if it is JSON as it should be."""
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return msgspec.Raw(body)


def _show_session(session: "SessionContents", *, reveal: bool) -> None:
    if session.cleared:
        print(f"{session.pseudonym}  {CLEARED}")
        return
    entries = session.entries
    size = sum(each.bytes for each in entries)
    number = counted(len(entries), *ENTRIES)
    print(f"{session.pseudonym}  opened {span(session.opened_age)} ago, {number}, {size:,} bytes")
    if reveal and session.owner is not None:
        print(f"catalog {printable(session.owner.catalog)}, user {printable(session.owner.user)}")
    rows = [["age", "kept for", "bytes", "resource"] + ["authority", "value"] * reveal]
    for each in entries:
        contents = each.contents
        row = [span(each.age), span(each.kept_for) if each.kept_for else "expired", f"{each.bytes:,}"]
        if contents is None:
            row += ["?"] + ["?", "?"] * reveal
        elif reveal:
            authority, key = read_back(contents.resource, contents.arguments)
            value = _value(contents.body)
            row += [
                printable(key),
                printable(authority) or "-",
                "?" if value is None else printable(bytes(value).decode()),
            ]
        else:
            row.append(printable(contents.resource))
        rows.append(row)
    columns(rows, right=range(3))
