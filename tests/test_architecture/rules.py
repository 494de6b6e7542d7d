"""The rules of the architecture as pure functions over source text, so that a test can plant a violation."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

# A room may import its own modules and contracts. ``launch`` may import every room; nobody imports ``launch``.
ROOMS = ("contracts", "producer", "worker.scoring", "worker.flagging", "worklist")
OURS = ("contracts", "producer", "worker", "worklist", "launch", "training", "bench", "chaos", "tests")
ALLOWED: dict[str, tuple[str, ...]] = {
    "contracts": ("contracts",),
    "producer": ("producer", "contracts"),
    "worker.scoring": ("worker.scoring", "contracts"),
    "worker.flagging": ("worker.flagging", "contracts"),
    "worklist": ("worklist", "contracts"),
    "training": ("training", "contracts"),
    "launch": ("launch", "contracts", "producer", "worker", "worklist", "training"),
}

# What touches the world: network, disk, clock, broker, environment. Threads and queues do not.
WORLD_MODULES = frozenset(
    "aiohttp asyncio.subprocess fcntl fsspec glob http httpx importlib.resources io.open kafka mmap os pathlib "
    "pynetdicom redis requests select shutil signal smtplib socket socketserver sqlite3 ssl sse_starlette starlette "
    "fastapi subprocess tempfile time tritonclient urllib urllib3 uvicorn watchfiles".split()
)
WORLD_CALLS = frozenset(
    "open input print datetime.now datetime.utcnow datetime.today date.today datetime.datetime.now "
    "datetime.datetime.utcnow datetime.date.today".split()
)
EDGE_SUFFIXES = ("_in", "_out", "_call")


def room_of(module: str) -> str | None:
    """The room a dotted module name belongs to, or None (packages' own ``__init__`` files included)."""
    known = sorted((*ROOMS, "launch", "training"), key=len, reverse=True)
    return next((room for room in known if module == room or module.startswith(room + ".")), None)


def imports(source: str, package: str) -> Iterator[tuple[str, int]]:
    """Every imported module, fully dotted, with its line; relative imports are resolved against ``package``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            yield base, node.lineno
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def _base(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    above = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join((*above, node.module) if node.module else above)


def room_violations(source: str, module: str) -> list[str]:
    """Imports of one of our packages that the module's room may not make."""
    room = room_of(module)
    if room is None:
        return []
    package = module.rpartition(".")[0]
    return [
        f"{module}:{line} imports {name}"
        for name, line in imports(source, package)
        if name.split(".")[0] in OURS and not _allowed(name, ALLOWED[room])
    ]


def _allowed(name: str, rooms: tuple[str, ...]) -> bool:
    return any(name == room or name.startswith(room + ".") or room.startswith(name + ".") for room in rooms)


def world_violations(source: str, module: str) -> list[str]:
    """Touches of the world in a room's module whose name does not end in ``_in``, ``_out`` or ``_call``."""
    if room_of(module) not in ROOMS or module.endswith(EDGE_SUFFIXES):
        return []
    touched = [(name, line) for name, line in imports(source, module.rpartition(".")[0]) if _is_world(name)]
    return [f"{module}:{line} touches the world: {name}" for name, line in (*touched, *_calls(source))]


def _is_world(name: str) -> bool:
    parts = name.split(".")
    return any(".".join(parts[: i + 1]) in WORLD_MODULES for i in range(len(parts)))


def _calls(source: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in WORLD_CALLS:
            yield name, node.lineno


def modules() -> list[tuple[str, Path]]:
    """Every module of ours with its dotted name."""
    found = []
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found
