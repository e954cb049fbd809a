"""The table of floors in the design, read from the imports: never up, never a peer, nothing on the side."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "coatcheck"

# Lowest first. A room may import its own package and lower floors.
FLOORS: list[set[str]] = [
    {"errors", "clock", "attempts", "engine.keys"},
    {
        f"engine.{module}"
        for module in ("policy", "codec", "deadlines", "entry", "catalog", "events", "stats", "flight", "limits", "outbox", "row", "slots", "state", "store")
    },
    {
        f"engine.{module}"
        for module in (
            "sessions", "home", "loads", "refresh", "resolution", "session", "cache", "schedule", "sync", "persistence", "repairs", "guarded", "write_behind",
            "connections", "walk", "counting", "parts"
        )
    },
    {"stores", "upstream", "telemetry"},
    {"ipc"},
    {"bootstrap", "settings"},
    {"service"},
    {"cli"},
]  # fmt: skip
# The wings of the third floor look at no more of the engine than this.
SEEN_BY_WINGS = {"engine.entry", "engine.keys", "engine.events", "engine.stats", "engine.store"}
OUTSIDE = {"", "simulator", "testing", "__main__"}


def room_of(module: str) -> str:
    """Return the room that a module below `coatcheck` belongs to."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "engine" and len(parts) > 1 else parts[0]


def floor_of(room: str) -> int:
    """Return the floor of a room."""
    for number, rooms in enumerate(FLOORS):
        if room in rooms:
            return number
    raise AssertionError(f"{room} has no place in the table of floors")


def modules() -> list[tuple[str, Path]]:
    """Return every module of the package with its name below `coatcheck`."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = list(path.relative_to(SOURCE).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found.append((".".join(parts), path))
    return found


def imports_of(path: Path) -> set[str]:
    """Return the modules of this package that a file imports, also for type checking or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [node.module or ""]
            if node.module is not None and (SOURCE.parent / node.module.replace(".", "/")).is_dir():
                # A name of a package may be a module of it.
                names = [
                    f"{node.module}.{alias.name}"
                    if (SOURCE.parent / node.module.replace(".", "/") / f"{alias.name}.py").exists()
                    else node.module
                    for alias in node.names
                ]
        else:
            continue
        found.update(
            name.removeprefix("coatcheck").removeprefix(".")
            for name in names
            if name.split(".")[0] == "coatcheck"
        )
    return found


@pytest.mark.parametrize(
    ("module", "path"), modules(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_imports_go_down_the_floors(module: str, path: Path) -> None:
    """A module imports its own package and lower floors only."""
    room = room_of(module)
    for imported in imports_of(path):
        target = room_of(imported)
        if target == room or (room == "" and module == ""):
            continue
        assert target not in OUTSIDE or room == "cli", (
            f"{module} imports {imported or 'the face of the package'}"
        )
        if room == "simulator":
            raise AssertionError(f"the simulator stands alone, but {module} imports {imported}")
        if room == "testing":
            assert floor_of(target) <= 2, f"{module} imports {imported}"
            continue
        if room in OUTSIDE or (room == "engine" and module == "engine"):
            continue
        if target == "simulator":
            continue  # only the command line starts it
        assert_below(module, room, imported, target)


def assert_below(module: str, room: str, imported: str, target: str) -> None:
    """Fail unless a room may look into another."""
    here, there = floor_of(room), floor_of(target)
    # The ground floor and the one of assembly have several rooms of one storey; only the wings are blind to each other.
    same_package = here in (0, 5) or room.split(".", maxsplit=1)[0] == target.split(".", maxsplit=1)[0]
    assert there < here or (there == here and same_package), (
        f"{module} (floor {here}) imports {imported} ({there})"
    )
    if room in FLOORS[3] and target.startswith("engine."):
        assert target in SEEN_BY_WINGS, f"{module} sees {imported} of the engine"


def test_every_room_has_a_floor() -> None:
    """A new room is put into the table before anything is built in it."""
    for module, _ in modules():
        room = room_of(module)
        if room not in OUTSIDE and room != "engine":
            floor_of(room)


def test_there_is_no_circle_among_modules() -> None:
    """Following the imports never leads back, not even for types."""
    graph = {module: imports_of(path) for module, path in modules() if module}
    state: dict[str, int] = {}

    def visit(module: str, way: tuple[str, ...]) -> None:
        if state.get(module) == 2 or module not in graph:
            return
        assert state.get(module) != 1, f"a circle: {' -> '.join((*way, module))}"
        state[module] = 1
        for imported in sorted(graph[module]):
            if imported and not module.startswith(f"{imported}."):
                visit(imported, (*way, module))
        state[module] = 2

    for module in graph:
        visit(module, ())
