"""Events as records of the standard library's logging."""

from __future__ import annotations

import logging

from coatcheck.engine.events import EntryRemoved, Event, LoadEnded, RefusalServed, SessionEnded, StaleServed


class LogObserver:
    """An observer for ``on_event`` that logs: loads at DEBUG, loads that failed at WARNING, ends of sessions at INFO.

    A record names a user by the pseudonym only, a failure by its class only, and carries the event itself as
    ``record.coatcheck_event``, for formatters that want its fields.

    Args:
        logger: where to; ``coatcheck`` when not given.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logging.getLogger("coatcheck") if logger is None else logger

    def __call__(self, event: Event) -> None:
        """Log one event."""
        match event:
            case LoadEnded(error=None):
                self._log(
                    logging.DEBUG,
                    event,
                    "load of %s: %s after %.3f s, cause %s, %d requests, session %s",
                    event.resource,
                    event.end.name.lower(),
                    event.seconds,
                    event.cause.name.lower(),
                    event.attempts,
                    event.pseudonym,
                )
            case LoadEnded():
                self._log(
                    logging.WARNING,
                    event,
                    "load of %s failed: %s after %.3f s, cause %s, %d requests, session %s",
                    event.resource,
                    event.error,
                    event.seconds,
                    event.cause.name.lower(),
                    event.attempts,
                    event.pseudonym,
                )
            case SessionEnded():
                cause = event.cause.name.lower()
                self._log(
                    logging.INFO,
                    event,
                    "session %s ended: %s, %d entries",
                    event.pseudonym,
                    cause,
                    event.entries,
                )
            case EntryRemoved():
                cause = event.cause.name.lower()
                self._log(
                    logging.DEBUG,
                    event,
                    "entry of %s removed: %s, session %s",
                    event.resource,
                    cause,
                    event.pseudonym,
                )
            case StaleServed():
                self._log(
                    logging.DEBUG, event, "stale %s served, session %s", event.resource, event.pseudonym
                )
            case RefusalServed():
                self._log(
                    logging.DEBUG,
                    event,
                    "refused from memory: %s, %s, session %s",
                    event.resource,
                    event.error,
                    event.pseudonym,
                )

    def _log(self, level: int, event: Event, message: str, *fields: object) -> None:
        self._logger.log(level, message, *fields, extra={"coatcheck_event": event})
