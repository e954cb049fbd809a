"""Where a store gets its keys from when it is not given them: a program's own function that returns a ring."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from coatcheck.errors import KeysUnusable
from coatcheck.stores.key_ring import KeyRing

KeyProvider = Callable[[], KeyRing]
"""A program's own source of keys: a function without parameters. Called once, when the store opens."""


def ring_of(keys: KeyRing | KeyProvider) -> KeyRing:
    """Return the ring itself, or the one that a provider returns, which is called now.

    Raises:
        KeysUnusable: as the provider raised it; or it raised something else, of which only the kind is told; or there
            is no ring.
    """
    if isinstance(keys, KeyRing):
        return keys
    if not callable(keys):
        # What it is may be a key.
        raise KeysUnusable(
            "keys are given as a KeyRing, or as a function without parameters that returns one"
        )
    # Raised below: what asks for keys may have put them, or what opens their place, into its exception.
    try:
        found: object = keys()
    except KeysUnusable:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a program's own function raises
        problem = f"raised {type(error).__qualname__}, with a text that is not shown, as it may hold a key: call it by itself to see it"
    else:
        if isinstance(found, KeyRing):
            return found
        problem = f"returned {type(found).__qualname__} in place of a KeyRing"
        if inspect.iscoroutine(found):
            # Or Python warns that nobody awaited it.
            found.close()
            problem += "; it must be no async function"
    raise KeysUnusable(f"the provider of the keys {problem}")
