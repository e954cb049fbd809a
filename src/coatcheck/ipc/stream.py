"""Server-sent events, read from bytes as they come."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its name, ``message`` if it has none, and its data lines, joined by line feeds."""

    name: str
    data: bytes = field(repr=False)


class EventStream:
    """Takes bytes cut anywhere and gives events.

    Lines end with LF, CRLF or CR; comments, ids and unknown fields are passed over. Time is linear in what is fed.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self._name = ""
        self._data: list[bytes] = []
        self._begun = False

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that *chunk* completes."""
        self._pending += chunk
        if b"\n" not in chunk and b"\r" not in chunk:
            return []
        lines = self._pending.splitlines(keepends=True)
        # A CR at the end may be half a CRLF, so it is not yet known to end its line.
        unfinished = b"" if lines[-1].endswith(b"\n") else bytes(lines.pop())
        self._pending = bytearray(unfinished)
        return [event for line in lines if (event := self._take(bytes(line).rstrip(b"\r\n"))) is not None]

    def finish(self) -> list[Event]:
        """Return the event that an orderly end of the stream completes, if its last blank line was left out."""
        lines = [*bytes(self._pending).splitlines(), b""]
        self._pending.clear()
        return [event for line in lines if (event := self._take(line)) is not None]

    def _take(self, line: bytes) -> Event | None:
        if not self._begun:
            self._begun = True
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            name, data = self._name, self._data
            self._name, self._data = "", []
            return Event(name or "message", b"\n".join(data)) if data else None
        name_of_field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name_of_field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif name_of_field == b"data":
            self._data.append(value)
        return None
