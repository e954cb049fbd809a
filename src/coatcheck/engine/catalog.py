"""What can be fetched for a user: resources, declared once, that may depend on each other by parameter name."""

from __future__ import annotations

import inspect
import itertools
import typing
import warnings
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, overload

from coatcheck.engine.codec import Body, Codec
from coatcheck.engine.policy import Policy, PolicyAdvice
from coatcheck.engine.row import mark_of
from coatcheck.errors import CatalogError, MissingArgument, UnknownArgument, UnknownResource

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

Api = TypeVar("Api")
T = TypeVar("T")

RESERVED: Final = frozenset({"force_refresh", "deep", "max_age"})
"""Options of a get, which cannot be names of a loader's parameters."""

_NO_DEFAULT: Final = object()
# Two catalogs of one name never share keys in memory.
_serial = itertools.count(1)


class Parameter:
    """One argument of a loader: a dependency when it is named like a resource, otherwise the caller's."""

    __slots__ = ("default", "dependency", "name")

    def __init__(self, name: str, dependency: Resource[Any] | None, default: object) -> None:
        self.name = name
        self.dependency = dependency
        self.default = default

    @property
    def has_default(self) -> bool:
        """Whether a caller may leave it out though nothing resolves it."""
        return self.default is not _NO_DEFAULT

    def value_of_default(self, resource: str) -> object:
        """Return the default.

        Raises:
            MissingArgument: there is none.
        """
        if self.default is _NO_DEFAULT:
            raise MissingArgument(f"{resource} needs the argument {self.name!r}: pass {self.name}=…")
        return self.default


class Resource(Generic[T]):
    """A named piece of upstream data: its loader, type and policy. Made by `Catalog.resource` and `Catalog.derived`.

    Attributes:
        name: the loader's name.
        signature: the name with those of the parameters: what its entries are filed under in a store, where a value
            loaded for other parameters must not be found.
        catalog: the name of its catalog.
        key: what its entries are filed under in memory; unique in the process and no prefix of another's.
        index: its place in the catalog.
        mark: its place in a session's row, and where hits are counted.
        origin: one object for all resources of a catalog, and for no others.
        shared: whether one decoded value serves all callers.
        derived: whether it is computed from others and costs no call.
        policy: as declared; a cache may have another in force.
        ancestors: the stored resources that a get without arguments passes through, in declared order.
        resolvable: whether a get can do without arguments.
    """

    __slots__ = (
        "ancestors", "catalog", "codec", "derived", "index", "key", "loader", "mark", "name", "origin", "parameters",
        "policy", "resolvable", "shared", "signature",
    )  # fmt: skip

    def __init__(
        self,
        loader: Callable[..., Any],
        *,
        catalog: str,
        key: str,
        index: int,
        origin: object,
        parameters: tuple[Parameter, ...],
        codec: Codec[T],
        policy: Policy,
        derived: bool,
    ) -> None:
        self.loader = loader
        self.name = loader.__name__
        self.signature = f"{self.name}({', '.join(parameter.name for parameter in parameters)})"
        self.catalog = catalog
        self.key = key
        self.index = index
        self.mark = mark_of(index)
        self.origin = origin
        self.parameters = parameters
        self.policy = policy
        self.derived = derived
        self.codec = codec
        self.shared = codec.shared
        self.ancestors = self.passed_through(())
        self.resolvable: bool = all(
            parameter.has_default if parameter.dependency is None else parameter.dependency.resolvable
            for parameter in parameters
        )

    def __repr__(self) -> str:
        return f"<resource {self.catalog}.{self.name}>"

    @property
    def dependencies(self) -> tuple[Resource[Any], ...]:
        """The resources that its parameters name."""
        return tuple(
            parameter.dependency for parameter in self.parameters if parameter.dependency is not None
        )

    def passed_through(self, passed: typing.Collection[str]) -> tuple[Resource[Any], ...]:
        """Return the stored resources that must be known first when the arguments named in *passed* are given."""
        found: dict[int, Resource[Any]] = {}
        for parameter in self.parameters:
            dependency = parameter.dependency
            if dependency is not None and parameter.name not in passed:
                found.update((ancestor.index, ancestor) for ancestor in dependency.ancestors)
                if not dependency.derived:
                    found[dependency.index] = dependency
        return tuple(found[index] for index in sorted(found))

    def calls(self, passed: typing.Collection[str] = ()) -> int:
        """Return how many upstream calls a get costs without a cache."""
        return (0 if self.derived else 1) + len(self.passed_through(passed) if passed else self.ancestors)

    def check_names(self, passed: typing.Collection[str]) -> None:
        """Accept the names of a caller's arguments.

        Raises:
            UnknownArgument: one is no parameter of this resource.
        """
        known = {parameter.name for parameter in self.parameters}
        for name in passed:
            if name not in known:
                takes = ", ".join(sorted(known)) or "none"
                raise UnknownArgument(f"{self.name} takes no argument {name!r}; it takes: {takes}")

    def check_complete(self, passed: typing.Collection[str], *, bare: str | None = None) -> None:
        """Accept the names of a caller's arguments if they are all that it takes to load this resource.

        Args:
            passed: their names.
            bare: of a call that takes no arguments, which it is and what to use instead.

        Raises:
            MissingArgument: one is missing, here or of what this resource depends on.
        """
        for parameter in self.parameters:
            if parameter.name in passed:
                continue
            if parameter.dependency is None:
                needing = None if parameter.has_default else (self.name, parameter.name)
            else:
                needing = parameter.dependency.needs()
            if needing is not None:
                raise MissingArgument(_missing(self.name, parameter.name, *needing, bare=bare))

    def needs(self) -> tuple[str, str] | None:
        """Return a resource on the way to this one, and the argument that it needs; None if a get can do without."""
        if self.resolvable:
            return None
        for parameter in self.parameters:
            if parameter.dependency is not None:
                found = parameter.dependency.needs()
                if found is not None:
                    return found
            elif not parameter.has_default:
                return self.name, parameter.name
        return None


def _missing(resource: str, argument: str, needing: str, needed: str, *, bare: str | None) -> str:
    """Say what is missing, and in which of its own arguments the resource that was asked for can be given it."""
    problem = f"{needing} needs the argument {needed!r}"
    if bare is not None:
        return f"{problem}, and {bare}({resource}, {argument}=…)"
    if needing != resource:
        problem += f", which {resource} does not take"
    return f"{problem}: pass {argument}=…"


class Declare(typing.Protocol):
    """What `Catalog.resource` with a policy returns: it makes a loader a resource of the loader's type."""

    @overload
    def __call__(self, loader: Callable[..., Awaitable[Body[T]]], /) -> Resource[T]: ...

    @overload
    def __call__(self, loader: Callable[..., Awaitable[T]], /) -> Resource[T]: ...


class Catalog(Generic[Api]):
    """A set of resources loaded through one kind of API object.

    What a resource depends on must be declared before it, so dependencies cannot form a circle.

    Args:
        name: a short name, part of what entries are stored under.
    """

    def __init__(self, name: str) -> None:
        if not name or not name.isidentifier():
            raise CatalogError("a catalog's name must be an identifier, such as 'ipc'")
        self.name = name
        self._serial = next(_serial)
        self.origin = object()
        self._resources: dict[str, Resource[Any]] = {}
        self._sealed = False

    def __repr__(self) -> str:
        return f"<catalog {self.name}: {', '.join(self._resources)}>"

    def __iter__(self) -> Iterator[Resource[Any]]:
        return iter(tuple(self._resources.values()))

    def __len__(self) -> int:
        return len(self._resources)

    def __getitem__(self, name: object) -> Resource[Any]:
        """Return the resource of that name.

        Raises:
            UnknownResource: there is none.
        """
        # No KeyError to raise ours from: it would show what was asked for.
        found = self._resources.get(name) if isinstance(name, str) else None
        if found is None:
            known = ", ".join(self._resources) or "none"
            raise UnknownResource(f"no such resource in catalog {self.name!r}; it has: {known}")
        return found

    def __contains__(self, resource: object) -> bool:
        return isinstance(resource, Resource) and self._resources.get(resource.name) is resource

    def check(self, resource: object) -> None:
        """Accept one of this catalog's resources.

        Raises:
            UnknownResource: it is something else, or another catalog's.
        """
        if resource not in self:
            what = (
                resource.name
                if isinstance(resource, Resource)
                else f"an object of type {type(resource).__name__}"
            )
            hint = "; pass the resource, or catalog[name]" if isinstance(resource, str) else ""
            raise UnknownResource(f"{what} is no resource of catalog {self.name!r}{hint}")

    @overload
    def resource(self, policy: Policy = ..., /) -> Declare: ...

    @overload
    def resource(self, loader: Callable[..., Awaitable[Body[T]]], /) -> Resource[T]: ...

    @overload
    def resource(self, loader: Callable[..., Awaitable[T]], /) -> Resource[T]: ...

    def resource(self, policy: Any = None, /) -> Any:
        """Declare a loader: an ``async def`` whose first parameter is what ``connect`` returned for the user.

        Every other parameter is a dependency if it is named like a resource declared before, else the caller's. It
        returns a value of the annotated type, or `Body` of it. A decorator, with a `Policy` or bare.

        Raises:
            CatalogError: the declaration cannot work; the message says what to write.
        """
        if callable(policy):
            return self._declare(policy, Policy(), derived=False)
        chosen = Policy() if policy is None else policy
        if not isinstance(chosen, Policy):
            raise CatalogError("catalog.resource takes a Policy, such as Policy(ttl=timedelta(hours=1))")
        return lambda loader: self._declare(loader, chosen, derived=False)

    def derived(self, function: Callable[..., T], /) -> Resource[T]:
        """Declare a plain function of other resources' values: as fresh as they are, no call, not stored.

        Raises:
            CatalogError: the declaration cannot work; the message says what to write.
        """
        resource: Resource[T] = self._declare(function, Policy(), derived=True)
        return resource

    def seal(self) -> None:
        """Refuse further declarations: a cache has been built on this catalog."""
        self._sealed = True

    def dependents(self, resource: Resource[Any]) -> tuple[Resource[Any], ...]:
        """Return every resource that depends on *resource*, at whatever distance."""
        found = {resource.index}
        for later in self._resources.values():
            if any(dependency.index in found for dependency in later.dependencies):
                found.add(later.index)
        return tuple(
            each for each in self._resources.values() if each.index in found and each is not resource
        )

    def _declare(self, function: Callable[..., Any], policy: Policy, *, derived: bool) -> Resource[Any]:
        name = getattr(function, "__name__", "")
        if self._sealed:
            raise CatalogError(
                f"{name}: declare every resource before a cache is built on catalog {self.name!r}"
            )
        if not name.isidentifier():
            raise CatalogError("a resource is a named function; a lambda or a partial has no name to ask for")
        if name in self._resources:
            raise CatalogError(f"{name} is declared twice in catalog {self.name!r}")
        if inspect.iscoroutinefunction(function) is derived:
            raise CatalogError(
                f"{name}: a derived resource is a plain def"
                if derived
                else f"{name}: a loader is an async def; for a plain function of other resources use catalog.derived"
            )
        parameters = self._parameters(name, function, derived=derived)
        if derived and not parameters:
            raise CatalogError(
                f"{name}: a derived resource takes at least one other resource to be derived from"
            )
        for each in policy.advice():
            warnings.warn(f"{name}: {each}", PolicyAdvice, stacklevel=3)
        resource: Resource[Any] = Resource(
            function,
            catalog=self.name,
            key=f"{self._serial}.{len(self._resources)}:",
            index=len(self._resources),
            origin=self.origin,
            parameters=parameters,
            codec=_codec(name, _declared_type(name, function)),
            policy=policy,
            derived=derived,
        )
        self._resources[name] = resource
        return resource

    def _parameters(self, name: str, function: Callable[..., Any], *, derived: bool) -> tuple[Parameter, ...]:
        found = list(inspect.signature(function).parameters.values())
        if not derived:
            if not found or found[0].kind not in (found[0].POSITIONAL_ONLY, found[0].POSITIONAL_OR_KEYWORD):
                raise CatalogError(
                    f"{name}: a loader's first parameter is what connect returned; write {name}(api, …)"
                )
            if found[0].name in self._resources:
                raise CatalogError(f"{name}: the first parameter is the api, but it is named like a resource")
            found = found[1:]
        return tuple(self._parameter(name, parameter, derived=derived) for parameter in found)

    def _parameter(self, name: str, parameter: inspect.Parameter, *, derived: bool) -> Parameter:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise CatalogError(f"{name}: parameter {parameter.name!r} must be passable by name; write it out")
        if parameter.name in RESERVED:
            raise CatalogError(f"{name}: {parameter.name!r} is an option of get and cannot be a parameter")
        if parameter.name == name:
            raise CatalogError(f"{name} cannot depend on itself")
        dependency = self._resources.get(parameter.name)
        if derived and dependency is None:
            raise CatalogError(
                f"{name}: {parameter.name!r} is no resource declared before; a derived resource takes nothing else"
            )
        default = _NO_DEFAULT if parameter.default is parameter.empty else parameter.default
        return Parameter(parameter.name, dependency, default)


def _declared_type(name: str, function: Callable[..., Any]) -> Any:
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise CatalogError(
            f"{name}: the type {error.name!r} in its annotations is not known in its module"
        ) from None
    except (AttributeError, SyntaxError, TypeError):
        raise CatalogError(f"{name}: its annotations cannot be read; write types that exist") from None
    if "return" not in hints:
        raise CatalogError(f"{name} must declare what it returns: write '-> SomeType'")
    declared = hints["return"]
    if typing.get_origin(declared) is Body:
        (declared,) = typing.get_args(declared)
    elif declared is Body:
        raise CatalogError(f"{name}: say what the body is of: write '-> Body[SomeType]'")
    return declared


def _codec(name: str, declared: Any) -> Codec[Any]:
    try:
        return Codec(declared, name=name)
    except (TypeError, NameError) as error:
        raise CatalogError(f"{name}: what it returns has no form in JSON: {error}") from None
