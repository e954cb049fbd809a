"""What an entry is stored under, read back for people: under which authority it was loaded, and its arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class StoredKey(NamedTuple):
    """What `read_back` found.

    Attributes:
        authority: under whose rights it was loaded; empty when the program says nothing of that.
        text: the resource with its arguments, such as ``zones(account_id=7)``.
    """

    authority: str
    text: str


def read_back(signature: str, arguments: bytes) -> StoredKey:
    """Return what `coatcheck.engine.keys` and the cache made of an entry's key. Never raises, whatever it holds.

    Args:
        signature: the resource's name with those of its parameters.
        arguments: as in a `coatcheck.engine.store.Record`.
    """
    parts = list(_parts(arguments))
    authority = _text_of(*parts.pop(0)) if parts and parts[0][0] == "s" else ""
    name, _, names = signature.removesuffix(")").partition("(")
    values = [_shown(tag, content) for tag, content in parts]
    named = [each for each in names.split(", ") if each]
    if len(named) == len(values):
        values = [f"{each}={value}" for each, value in zip(named, values, strict=True)]
    elif named and not values:
        # Called without: filed under its name alone.
        return StoredKey(authority, name)
    return StoredKey(authority, f"{name}({', '.join(values)})" if values else name)


def _parts(encoded: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield tag and content of each part; where it is none, an unknown tag and the rest."""
    while encoded:
        tag, rest = chr(encoded[0]), encoded[1:]
        if tag in "ntf":
            yield tag, b""
            encoded = rest
            continue
        length, colon, rest = rest.partition(b":")
        if not colon or not length.isdigit() or int(length) > len(rest):
            yield "?", encoded
            return
        yield tag, rest[: int(length)]
        encoded = rest[int(length) :]


def _shown(tag: str, content: bytes) -> str:
    simple = {"n": "null", "t": "true", "f": "false"}.get(tag)
    if simple is not None:
        return simple
    show = _SHOWN.get(tag)
    try:
        return "?" if show is None else show(content)
    except (ValueError, IndexError, RecursionError):
        return "?"


def _text_of(_tag: str, content: bytes) -> str:
    return content.decode("utf-8", "replace")


def _inside(content: bytes) -> str:
    return ", ".join(_shown(tag, each) for tag, each in _parts(content))


def _type_name(content: bytes) -> str:
    _module, name = (each.decode() for _, each in list(_parts(content))[:2])
    return name


def _member(content: bytes) -> str:
    _module, name, member = list(_parts(content))
    return f"{name[1].decode()}.{_text_of(*member) if member[0] == 's' else _shown(*member)}"


_SHOWN: dict[str, Callable[[bytes], str]] = {
    "i": lambda content: str(int(content, 16)),
    "s": lambda content: msgspec.json.encode(content.decode()).decode(),
    "d": lambda content: repr(float.fromhex(content.decode())),
    "b": lambda content: f"<{len(content)} bytes>",
    "h": lambda content: f"#{content[:8].hex()}",
    "(": lambda content: f"({_inside(content)})",
    "[": lambda content: f"[{_inside(content)}]",
    "<": lambda content: f"<{_inside(content)}>",
    "{": lambda content: f"{{{_inside(content)}}}",
    "e": _member,
    "o": lambda content: f"<{_type_name(content)}>",
}
