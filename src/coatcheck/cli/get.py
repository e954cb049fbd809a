"""``coatcheck get``: one look-up against the configured upstream."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from coatcheck.cli.mistake import Mistake
from coatcheck.cli.next_step import next_step
from coatcheck.errors import (
    InvalidKey,
    LoadError,
    MissingArgument,
    UnknownArgument,
    UnknownResource,
    WrongType,
)

if TYPE_CHECKING:
    from coatcheck.engine.catalog import Resource
    from coatcheck.engine.entry import Lookup
    from coatcheck.settings import Settings

NO_UPSTREAM = (
    "no upstream is configured: set COATCHECK_UPSTREAM_URL, or upstream_url in coatcheck.toml, to"
    " http(s)://host[:port]; `coatcheck demo` needs none"
)


async def get(
    resource: str,
    /,
    *,
    user: Annotated[str, Parameter(help="Whose data; their account must be configured.")],
    arg: Annotated[
        tuple[str, ...],
        Parameter(
            help="An argument as name=value, the value as JSON or else as text; may be repeated.", negative=""
        ),
    ] = (),
    refresh: Annotated[bool, Parameter(help="Load it anew.", negative="", show_default=False)] = False,
    json: Annotated[
        bool, Parameter(help="Print value and outcome as one JSON object.", negative="", show_default=False)
    ] = False,
    config: Annotated[
        Path | None, Parameter(help="The TOML file with the settings, instead of COATCHECK_CONFIG.")
    ] = None,
) -> int:
    """Look one resource up for a user, and print its value; how it was come by goes to standard error.

    What is loaded is stored, sealed, in the file that the settings name (``store``), and is there the next time.

    If the upstream fails, one line says how and what to do about it, and the exit code is 1.

    Parameters
    ----------
    resource
        Such as endpoints or business_units; a wrong one lists them all.
    """
    from coatcheck.ipc.resources import catalog  # noqa: PLC0415 - with HTTP behind it, slow to import
    from coatcheck.settings import load  # noqa: PLC0415 - the same, with pydantic

    settings = load(config)
    if settings.upstream_url is None:
        raise Mistake(NO_UPSTREAM)
    try:
        wanted = catalog[resource]
        arguments = _arguments(wanted, arg)
        look = await _look_up(settings, wanted, user, arguments, refresh=refresh)
    except (UnknownResource, UnknownArgument, MissingArgument, InvalidKey) as error:
        raise Mistake(str(error)) from None
    except LoadError as error:
        step = next_step(error)
        if step is None:
            raise
        raise LoadError(f"{error}; {step}") from None
    _show(wanted, look, as_json=json)
    return 0


def _arguments(resource: "Resource[Any]", given: tuple[str, ...]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not equals or not name:
            raise Mistake("--arg takes name=value, such as --arg paas_engagement_id=4101")
        if name in arguments:
            raise Mistake(f"--arg {name} is given twice")
        try:
            arguments[name] = msgspec.json.decode(text)
        except msgspec.DecodeError:
            arguments[name] = text
    resource.check_names(arguments)
    for parameter in resource.parameters:
        if parameter.name in arguments and parameter.dependency is not None:
            try:
                parameter.dependency.codec.accept(arguments[parameter.name])
            except WrongType:
                raise Mistake(f"--arg {parameter.name} has a value of another type than it takes") from None
    return arguments


async def _look_up(
    settings: "Settings", resource: "Resource[Any]", user: str, arguments: dict[str, Any], *, refresh: bool
) -> "Lookup[Any]":
    from coatcheck.bootstrap import ipc_cache, session_store  # noqa: PLC0415 - with aiohttp, slow to import

    async with ipc_cache(settings, store=session_store(settings)) as cache:
        return await cache.session(user).lookup(resource, force_refresh=refresh, **arguments)


def _show(resource: "Resource[Any]", look: "Lookup[Any]", *, as_json: bool) -> None:
    if as_json:
        shown = {
            "resource": resource.name,
            "outcome": look.outcome.value,
            "age": look.age,
            "fresh_for": look.fresh_for,
            "value": msgspec.Raw(look.body),
        }
        sys.stdout.write(f"{msgspec.json.encode(shown).decode()}\n")
        return
    sys.stdout.write(f"{msgspec.json.format(look.body, indent=2).decode()}\n")
    sys.stdout.flush()
    minutes, seconds = divmod(round(look.fresh_for), 60)
    # In hours, however many: a day and a second less than one are told in the same way.
    fresh_for = f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    sys.stderr.write(f"{look.outcome.value}, age {look.age:.3f} s, fresh for {fresh_for}\n")
