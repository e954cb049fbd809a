"""Everything that coatcheck raises.

::

    CoatcheckError
    ├── InvalidKey (ValueError)         a user id or an argument that cannot be part of a key
    ├── UnknownResource (LookupError)   the resource is not of this cache's catalog
    ├── MissingArgument (TypeError)     an argument without a default was not given
    ├── UnknownArgument (TypeError)     an argument that the resource does not take
    ├── CatalogError (TypeError)        a resource declared wrongly
    ├── PolicyError (ValueError)        a policy that contradicts itself, or limits that do
    ├── SettingsError (ValueError)      a setting that is missing or cannot be used
    ├── MissingExtra (ImportError)      what this part of coatcheck needs is not installed
    ├── KeysUnusable                    the keys of a store are missing, open to others, or cannot be read
    ├── StoreInUse                      another program, or another cache, has this store open
    ├── StoreFailed                     a store cannot do it now; the engine goes on without it
    ├── LoadError                       a load brought no value
    │   ├── Unavailable                 for now: a stale value may hide it
    │   │   ├── LoadTimeout             no end before the deadline
    │   │   ├── UpstreamTimeout
    │   │   ├── UpstreamUnreachable     no connection, or one that broke
    │   │   ├── UpstreamFailed          5xx, or an envelope that reports a failure
    │   │   ├── RateLimited             429, or a pause that it asked for
    │   │   ├── BreakerOpen             it failed so often that it is left alone for a while
    │   │   └── BadUpstreamBody         too large, not JSON, or not of the declared type
    │   ├── Refused                     for this user: nothing may hide it
    │   │   ├── AuthExpired             401 that a new token did not cure
    │   │   ├── Forbidden               403
    │   │   ├── NotFound                404
    │   │   └── Gone                    410
    │   ├── NoCredentials               nothing is known to log this user in with
    │   ├── UpstreamRejected            any other status: the request itself was wrong
    │   ├── WrongType                   the loader returned what it did not declare
    │   ├── LoaderBroke                 the loader was cancelled or raised no ordinary exception
    │   └── ReentrantLoad               a loader asked for the very key that it loads
    ├── SessionCleared                  the session was cleared and this call would need a new load
    ├── CacheClosed                     the cache was closed
    ├── ForkedCache                     the cache was used in the parent of this process
    └── WouldBlockLoop (RuntimeError)   a blocking call in a thread whose event loop it would block

No message, argument or repr holds a value, a body, a token, a user id, an argument or a URL with secrets: what an
exception says may be logged. Names of resources and parameters, statuses and durations are safe and are given.
"""

from __future__ import annotations


class CoatcheckError(Exception):
    """The root of every exception that coatcheck raises of its own."""


class InvalidKey(CoatcheckError, ValueError):
    """A user id or an argument cannot be part of a key."""


class UnknownResource(CoatcheckError, LookupError):
    """The resource does not belong to the catalog of this cache."""


class MissingArgument(CoatcheckError, TypeError):
    """A loader needs an argument that was neither passed nor has a default nor is a resource."""


class UnknownArgument(CoatcheckError, TypeError):
    """A resource was asked for with an argument or option that it does not take."""


class CatalogError(CoatcheckError, TypeError):
    """A resource was declared wrongly; the message says what to write instead."""


class PolicyError(CoatcheckError, ValueError):
    """A policy or a limit that contradicts itself; the message says what to write instead."""


class SettingsError(CoatcheckError, ValueError):
    """A setting is missing or cannot be used; the message names it and says how to set it."""


class MissingExtra(CoatcheckError, ImportError):
    """A part of coatcheck needs what is not installed; the message says what to install."""


class KeysUnusable(CoatcheckError):
    """The keys that a store seals with are missing, can be read by others, or are no keys."""


class StoreInUse(CoatcheckError):
    """Another process, or another cache of this one, has this store open."""


class StoreFailed(CoatcheckError):
    """A store cannot do now what was asked, or nobody can tell whether it did. It never fails a get."""


class LoadError(CoatcheckError):
    """A load ended without a value."""


class Unavailable(LoadError):
    """The upstream cannot answer for now. A stale value may be served instead."""


class LoadTimeout(Unavailable):
    """A load did not end before its deadline; the key is free again."""


class UpstreamTimeout(Unavailable):
    """The upstream did not answer, or not to the end, within the total deadline of the request."""


class UpstreamUnreachable(Unavailable):
    """No connection to the upstream, or one that broke before the end of the answer."""


class UpstreamFailed(Unavailable):
    """The upstream answered that it failed: a 5xx, or a 200 whose envelope reports a failure.

    Attributes:
        status: the HTTP status.
        response_code: the envelope's own code, when there was one.
        retry_after: seconds that the upstream asked to wait, when it said so and it could be read.
    """

    def __init__(
        self, message: str, *, status: int, response_code: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.response_code = response_code
        self.retry_after = retry_after


class RateLimited(Unavailable):
    """The upstream asked for fewer calls (429), or for a pause that has not passed yet: then nothing was sent.

    Attributes:
        retry_after: seconds that the upstream asked to wait, when it said so and it could be read; during a pause,
            those that are left.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BreakerOpen(Unavailable):
    """The upstream failed so often in a row that it is left alone for a while. Nothing was sent.

    Attributes:
        retry_after: seconds until a request may leave again; zero while one is under way to find out.
    """

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BadUpstreamBody(Unavailable):
    """The upstream's body is too large, is not JSON, or is not of the declared type. It is not kept.

    Attributes:
        limit: bytes that it may have, when it has more.
    """

    def __init__(self, message: str, *, limit: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit


class Refused(LoadError):
    """The upstream refuses this user. Never hidden by a stale value.

    Attributes:
        revokes_dependents: whether all that depends on the resource is void, too (401 and 403).
    """

    revokes_dependents = False


class AuthExpired(Refused):
    """401, and a new token did not cure it."""

    revokes_dependents = True


class Forbidden(Refused):
    """403."""

    revokes_dependents = True


class NotFound(Refused):
    """404."""


class Gone(Refused):
    """410."""


class NoCredentials(LoadError):
    """Nothing is known to log this user in with; another's credentials are never used instead."""


class UpstreamRejected(LoadError):
    """The upstream rejected the request itself: a status that neither waiting nor a log-in cures.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class WrongType(LoadError):
    """A loader returned a value that is not of the type it declares. Nothing of it is kept."""


class LoaderBroke(LoadError):
    """A loader was cancelled from within or raised what is not an ordinary exception."""


class ReentrantLoad(LoadError):
    """A loader asked the session for the key that it is loading itself."""


class SessionCleared(CoatcheckError):
    """The session was cleared while this call waited, and the call would need another load."""


class CacheClosed(CoatcheckError):
    """The cache was closed, or was not opened yet."""


class ForkedCache(CoatcheckError):
    """The cache was used before this process was forked; make one in the child."""


class WouldBlockLoop(CoatcheckError, RuntimeError):
    """A call that may wait for a load was made where an event loop runs; use `SessionCache` and await there."""
