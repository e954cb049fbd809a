"""Settings: from the environment and one TOML file, checked at once, frozen.

Every setting is a field of `Settings`. In the environment it is called ``COATCHECK_`` and its name in capitals, with
``__`` between a table and a field in it (``COATCHECK_LIMITS__MAX_SESSIONS``); tables may also be given whole, as JSON.
The file is the one that ``COATCHECK_CONFIG`` names, or else ``coatcheck.toml`` in the working directory if there is
one. The environment wins over the file; an empty variable counts as absent. Nothing is read on import.

``keys_text`` comes from the environment alone: a file of keys must be private, and a file of settings need not be.

Example::

    upstream_url = "https://ipc.example"
    ttl = "PT12H"

    [accounts]
    "ann@example.com" = "her password"
    "bob@example.com" = { email = "robert@example.com", password = "his password" }

    [limits]
    max_sessions = 20_000
"""

from __future__ import annotations

import logging
import math
import os
import re
import tomllib
from collections.abc import Mapping  # noqa: TC003 - pydantic reads annotations at run time
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import urlsplit

from coatcheck.engine.limits import Limits
from coatcheck.errors import KeysUnusable, MissingExtra, SettingsError
from coatcheck.stores.key_ring import NO_PATH, KeyRing, is_key
from coatcheck.upstream.tokens import sendable

try:
    from platformdirs import user_config_path, user_data_path
    from pydantic import (
        AfterValidator,
        BaseModel,
        BeforeValidator,
        ConfigDict,
        Field,
        SecretStr,
        ValidationError,
        model_validator,
    )
    from pydantic_core import PydanticCustomError
    from pydantic_settings import (
        BaseSettings,
        EnvSettingsSource,
        PydanticBaseSettingsSource,
        SettingsConfigDict,
    )
    from pydantic_settings.exceptions import SettingsError as SourceError
except ModuleNotFoundError as missing:
    raise MissingExtra(
        f"coatcheck.settings needs {missing.name}: install coatcheck[ipc]", name=missing.name
    ) from None

logger = logging.getLogger("coatcheck.settings")

PREFIX: Final = "COATCHECK_"
CONFIG: Final = f"{PREFIX}CONFIG"
KEYS_TEXT: Final = f"{PREFIX}KEYS_TEXT"
DEFAULT_FILE: Final = "coatcheck.toml"
IN_MEMORY: Final = "memory"
"""The setting of ``store`` that keeps sessions in memory alone."""

_NO_SETTINGS: Final = {CONFIG, f"{PREFIX}DEEP", f"{PREFIX}SEED"}
"""Variables that are read elsewhere: which file is read, and how deep coatcheck's own tests search."""

_TABLES: Final = {"accounts", "everyone_sees_data_of", "limits"}
"""Settings whose fields may be given as variables of their own."""

MIN_STORE_BYTES: Final = 1024 * 1024

_DURATION = "must be seconds, or a duration such as PT30M"
_ACCOUNT = "must be a password, or a table with email and password"
_PACE = "must be a number above zero"
_CLEARER = {
    "extra_forbidden": "there is no such setting",
    "missing": "is missing",
    "time_delta_parsing": _DURATION,
    "time_delta_type": _DURATION,
    "greater_than": "must be longer than zero",
    "greater_than_equal": "must be 1 or more",
    "less_than_equal": "must be ten years or less",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large",
    "float_parsing": _PACE,
    "float_type": _PACE,
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
    "path_type": "must be a path",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "model_type": "must be a table",
    "mapping_type": "must be a table",
    "dict_type": "must be a table",
}
_NO_OWNER: Final = "token_without_owner"
_TOO_MUCH: Final = "token_and_password"
_KEYS_TWICE: Final = "keys_and_keys_text"
_ENVIRONMENT_ONLY: Final = f"comes from {KEYS_TEXT} alone; here, keys names a file of keys, which is private"

# Not one with so many hexadecimal digits in a row, which are of a key.
_PLAIN_NAME = re.compile(r"(?!.*[0-9A-Fa-f]{32})[A-Za-z][A-Za-z0-9_]*")


def _seconds(value: object) -> object:
    """Turn a number in text into one: pydantic takes ``"3600"`` for days that are not correctly formatted."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(_DURATION)
    return value


def _url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if (
        not usable
        or not url.isprintable()
        or " " in url
        or "@" in parts.netloc
        or parts.query
        or parts.fragment
    ):
        raise ValueError("must be http(s)://host[:port][/prefix] and nothing else")
    return url


def _token(token: SecretStr) -> SecretStr:
    if not sendable(token.get_secret_value()):
        raise ValueError("must be printable ASCII without blanks, to be sent in a header")
    return token


def _no_key(path: Path) -> Path:
    if is_key(path):
        raise ValueError(f"must be the path of a file of keys, not a key; {KEYS_TEXT} takes keys")
    return path


def _store(path: str) -> str:
    if is_key(path):
        raise ValueError(f"{NO_PATH}; {KEYS_TEXT} takes keys")
    if path != IN_MEMORY and path.strip().lower() in {IN_MEMORY, ":memory:"}:
        raise ValueError(f"must be a path: is `{IN_MEMORY}` meant?")
    if "\0" in path:
        raise ValueError("must be a path: it has a NUL in it")
    return path


def _keys(text: SecretStr) -> SecretStr:
    try:
        KeyRing.from_text(text.get_secret_value())
    except KeysUnusable as error:
        problem = str(error)
    else:
        return text
    raise ValueError(problem)


def _store_bytes(number: int) -> int:
    if number < MIN_STORE_BYTES:
        raise ValueError(f"must be {MIN_STORE_BYTES} or more")
    return number


def _pace(number: float) -> float:
    if not 0 < number < math.inf:
        raise ValueError(_PACE)
    return number


def _account(value: object) -> object:
    return {"password": value} if isinstance(value, str | SecretStr) else value


Span = Annotated[timedelta, BeforeValidator(_seconds), Field(gt=timedelta(0), le=timedelta(days=3660))]
Secret = Annotated[SecretStr, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]

_LIMITS = Limits()


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class AccountSettings(_Table):
    """What one user is logged in with.

    Attributes:
        password: the account's.
        email: the account's, when it is not the user id itself.
    """

    password: Secret
    email: Text | None = Field(default=None, repr=False)


class SharedAccount(_Table):
    """The account whose data everyone sees."""

    email: Text = Field(repr=False)
    password: Secret


class LimitSettings(_Table):
    """The bounds of `coatcheck.Limits`."""

    max_bytes: Count = _LIMITS.max_bytes
    max_sessions: Count = _LIMITS.max_sessions
    max_keys_per_session: Count = _LIMITS.max_keys_per_session
    max_loads: Count = _LIMITS.max_loads
    max_loads_per_user: Count = _LIMITS.max_loads_per_user
    max_refreshes: Count = _LIMITS.max_refreshes
    max_loads_per_second: Annotated[float, AfterValidator(_pace)] | None = _LIMITS.max_loads_per_second

    def limits(self) -> Limits:
        """Return them as the cache takes them."""
        return Limits(**self.model_dump())


class Settings(_Table):
    """All settings. Made directly it reads nothing; `load` reads environment and file.

    Attributes:
        upstream_url: where the upstream is. There is no default: no host is ever guessed.
        timeout: how long one upstream request may take; seconds, or a duration such as ``PT30S``.
        max_body: bytes that an upstream body may have.
        ttl: how long every resource is fresh; None for what the catalog declares, 24 hours.
        default_email: the user of a call that names none, in programs that use the drop-in service.
        strict_users: refuse a call that names no user, instead of using ``default_email``.
        accounts: by user id, the password or a table with ``password`` and ``email``.
        token: a token of ``default_email``, who then needs no password. It cannot be renewed.
        everyone_sees_data_of: an account for all users that have none of their own: **each of them sees that
            account's data as if it were theirs**. None: such users get an error.
        store: the file in which sessions survive restarts, ``memory`` for none, or None for `default_store`.
        max_store_bytes: how large that file may become; then the sessions opened longest ago go.
        keys: the file of the keys that what is stored is sealed with; None for `default_keys`.
        keys_text: those keys themselves, in place of a file: what is in one.
        limits: what the cache may hold and do at once.
    """

    upstream_url: Annotated[str, AfterValidator(_url)] | None = None
    timeout: Span = timedelta(seconds=30)
    max_body: Count = 1024 * 1024
    ttl: Span | None = None
    default_email: Text | None = Field(default=None, repr=False)
    strict_users: bool = False
    accounts: Mapping[str, Annotated[AccountSettings, BeforeValidator(_account)]] = Field(
        default={}, repr=False
    )
    token: Annotated[SecretStr, AfterValidator(_token)] | None = None
    everyone_sees_data_of: SharedAccount | None = None
    store: Annotated[Text, AfterValidator(_store)] | None = None
    max_store_bytes: Annotated[int, AfterValidator(_store_bytes)] = 1024 * 1024 * 1024
    keys: Annotated[Path, AfterValidator(_no_key)] | None = None
    keys_text: Annotated[SecretStr, AfterValidator(_keys)] | None = None
    limits: LimitSettings = LimitSettings()

    def store_file(self) -> Path | None:
        """Return where sessions are stored; None for in memory alone."""
        if self.store is None:
            return default_store()
        return None if self.store == IN_MEMORY else Path(self.store).expanduser()

    def keys_file(self) -> Path:
        """Return where the keys are, unless they are `given_keys`."""
        return default_keys() if self.keys is None else self.keys.expanduser()

    def given_keys(self) -> KeyRing | None:
        """Return the keys that the settings hold themselves; None if they are in a file."""
        return None if self.keys_text is None else KeyRing.from_text(self.keys_text.get_secret_value())

    @model_validator(mode="after")
    def _token_has_an_owner(self) -> Settings:
        if self.token is not None and self.default_email is None:
            raise PydanticCustomError(_NO_OWNER, "token: whose is it? set default_email, too")
        if self.token is not None and self.default_email in self.accounts:
            raise PydanticCustomError(
                _TOO_MUCH, "token: its user has a password in accounts, too; give one of them"
            )
        return self

    @model_validator(mode="after")
    def _keys_are_in_one_place(self) -> Settings:
        if self.keys is not None and self.keys_text is not None:
            raise PydanticCustomError(
                _KEYS_TWICE, "keys_text: keys names a file of keys, too; give one of them"
            )
        return self


class _FromEnvironment(BaseSettings, Settings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is given
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the same
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the same
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # What is passed is what the file says, and the environment wins over it.
        return env_settings, init_settings


def default_store() -> Path:
    """Return where sessions are stored when no setting says it: in the folder for the user's data."""
    return user_data_path("coatcheck") / "sessions.sqlite"


def default_keys() -> Path:
    """Return where the keys are when no setting says it: in the folder for the user's settings."""
    return user_config_path("coatcheck") / "keys"


def load(config: str | Path | None = None) -> Settings:
    """Return the settings of this process. A variable that looks like a setting and is none is named in the log.

    Args:
        config: the TOML file to read instead of the one that ``COATCHECK_CONFIG`` names.

    A variable that is empty counts as unset, but for the one of keys, where it is an error.

    Raises:
        SettingsError: for each wrong setting one line that names it where it is written, by its variable or by its
            name in the file; none shows a value.
    """
    _warn_of_unknown_variables()
    named = os.environ.get(CONFIG) or None
    given = named if config is None else config
    path = Path(DEFAULT_FILE if given is None else given)
    what = f"setting {CONFIG}:" if config is None and named is not None else "the file of settings"
    if is_key(path):
        raise SettingsError(f"{what.removesuffix(':')}: {NO_PATH}")
    file = _read(path, what, required=given is not None)
    # Out of the way of all that comes next. The names of settings are read whatever their case.
    barred = [file.pop(name) for name in list(file) if name.lower() == "keys_text"]
    lines = [f"setting keys_text in {path}: {_ENVIRONMENT_ONLY}"] if barred else []
    if os.environ.get(KEYS_TEXT) == "":
        # Whoever meant to give keys would lose what is stored under them.
        lines.append(f"setting {KEYS_TEXT}: is empty; give the keys, or unset it")
    # Raised below, where no exception that holds the values can become the context.
    try:
        # Not `dict()` alone: it takes what has `keys` for a mapping.
        settings = Settings(**dict(iter(_FromEnvironment(**file))))
    except ValidationError as error:
        written = _Written(path, file, EnvSettingsSource(_FromEnvironment)())
        lines += [
            _line(problem["loc"], problem["type"], problem["msg"], written)
            for problem in error.errors(include_input=False)
        ]
    except SourceError as error:
        field = re.search(r'field "(\w+)"', str(error))
        lines.append(f"setting {PREFIX}{field[1].upper() if field else '…'}: must be a table written as JSON")
    else:
        if not lines:
            return settings
    raise SettingsError("\n".join(dict.fromkeys(lines)))


def _warn_of_unknown_variables() -> None:
    for name, value in os.environ.items():
        upper = name.upper()
        if not value or not upper.startswith(PREFIX) or upper in _NO_SETTINGS:
            continue
        setting, nested, _ = upper.removeprefix(PREFIX).lower().partition("__")
        if setting not in (_TABLES if nested else Settings.model_fields):
            shown = name if _PLAIN_NAME.fullmatch(name) else f"{PREFIX}…"
            logger.warning("%s is ignored: there is no such setting", shown)


class _Written(NamedTuple):
    """What is written in a file of settings and in the environment, which wins."""

    path: Path
    file: dict[str, Any]
    environment: dict[str, Any]

    def in_file(self, names: list[str]) -> bool:
        """Tell whether it is in the file that what is called so is written; if it is missing, what it belongs to."""
        for depth in range(len(names), 0, -1):
            if _has(self.environment, names[:depth]):
                return False
            if _has(self.file, names[:depth]):
                return True
        return False

    def named(self, names: list[str], *, shown: int | None = None) -> str:
        """Return what a setting is called where it is written.

        Args:
            names: the setting's, and those of what is in it.
            shown: how many of them may be shown; the others only say where it is written.
        """
        first, *others = names[:shown]
        if self.in_file(names):
            return f"{'.'.join([first, *others])} in {self.path}"
        variable = PREFIX + first.upper()
        given = {name.upper() for name, value in os.environ.items() if value}
        full = "__".join([variable, *others]).upper()
        return f"{'.'.join(others)} in {variable}" if variable in given and full not in given else full


def _has(level: object, names: list[str]) -> bool:
    """Tell whether something is called so, from a table to what is in it."""
    for number, name in enumerate(names):
        if not isinstance(level, dict):
            return False
        # The names of settings are read whatever their case.
        called = next((each for each in level if each.lower() == name), name) if number == 0 else name
        if called not in level:
            return False
        level = level[called]
    return True


def _read(path: Path, what: str, *, required: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if not required:
            return {}
        problem = "does not exist"
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    except UnicodeDecodeError:
        problem = "is not UTF-8"
    except tomllib.TOMLDecodeError as error:
        # Its text may quote the file, which holds passwords; the place is enough.
        place = re.search(r"\(at [\w ,]+\)$", str(error))
        problem = f"is not TOML {place[0] if place else ''}".strip()
    raise SettingsError(f"{what} {path} {problem}")


def _line(place: tuple[int | str, ...], kind: str, message: str, written: _Written) -> str:
    """Say in one line what is wrong, without the value, and without user ids, which are keys of ``accounts``."""
    if not place:
        return f"setting {_of_keys(written) if kind == _KEYS_TWICE else _of_token(kind, written)}"
    text = _CLEARER.get(kind, message.removeprefix("Value error, ").replace("Input should", "must", 1))
    names = [str(part) for part in place]
    if names[0] == "accounts":
        field = f"{names[2]} of one account: " if len(names) > 2 and _PLAIN_NAME.fullmatch(names[2]) else ""
        if len(names) == 2:
            field, text = "of one account: ", _ACCOUNT
        return f"setting {written.named(names, shown=1)}: {field}{text}"
    if not all(_PLAIN_NAME.fullmatch(name) for name in names):
        return f"setting {f'… in {written.path}' if written.in_file(names) else f'{PREFIX}…'}: {text}"
    return f"setting {written.named(names)}: {text}"


def _of_keys(written: _Written) -> str:
    return f"{KEYS_TEXT}: {written.named(['keys'])} names a file of keys, too; give one of them"


def _of_token(kind: str, written: _Written) -> str:
    token = written.named(["token"])
    if kind == _NO_OWNER:
        owner = "default_email" if written.in_file(["token"]) else f"{PREFIX}DEFAULT_EMAIL"
        return f"{token}: whose is it? set {owner}, too"
    user = written.environment if _has(written.environment, ["default_email"]) else written.file
    accounts = written.named(["accounts", str(user.get("default_email"))], shown=1)
    return f"{token}: its user has a password in {accounts}, too; give one of them"
