"""The house rules as functions over a source tree, so that the rules themselves can be tested on a bad one.

Reads source with `ast` and imports nothing of it: a tree that does not even run can still be judged. Every check
returns findings as sentences that name the file and the line; an empty list means that the rule holds.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("collector", "correlator", "audit_api", "dashboards", "alerting", "deploy")

COLLECTOR_NOUNS = frozenset(
    f"collector{name}" for name in ("", ".event", ".canonical", ".batch", ".recorder", ".store", ".errors")
)
CORRELATOR_NOUNS = frozenset(
    f"correlator{name}" for name in ("", ".entry", ".checkpoint", ".log", ".index", ".incidents", ".errors")
)
"""What a stage shows to the next ones: its nouns, their bytes, and the errors that a caller acts on."""

METRICS = frozenset(f"{package}.metrics" for package in PACKAGES) | {"collector.store.metrics"}

MAY_IMPORT: Mapping[str, frozenset[str]] = {
    "collector": frozenset(),
    "correlator": frozenset({"collector.*"}),
    "audit_api": frozenset({"correlator.*"}) | COLLECTOR_NOUNS,
    "dashboards": METRICS,
    "alerting": METRICS | CORRELATOR_NOUNS | COLLECTOR_NOUNS,
    "deploy": frozenset(f"{package}.*" for package in PACKAGES),
}
"""Which modules a package may import, beside its own. `name.*` is a whole package; a plain name is that module alone."""

PURE = frozenset(
    {"collector.event", "collector.canonical", "collector.batch"}
    | {"collector.store.opensearch.layout", "collector.store.opensearch.documents"}
    | {f"collector.receive.tail.{name}" for name in "lines formats messages events prints position kubernetes".split()}
    | {f"collector.receive.syslog.{name}" for name in "framing message events".split()}
    | {"correlator.index.opensearch.documents"}
    | {
        f"correlator.{name}"
        for name in "entry merkle frontier tiles note checkpoint proof verify archive bundle unbundle page proved trail story stitch flow skew incidents".split()
    }
)
"""Bytes in, values or one error out: a verifier in another language must be able to follow these line by line."""

IMPURE_IMPORTS = frozenset(
    "os pathlib io.open shutil tempfile glob mmap fcntl socket ssl select selectors http urllib.request asyncio anyio "
    "threading multiprocessing concurrent subprocess signal time random secrets uuid sqlite3 lmdb logging httpx "
    "requests starlette fastapi uvicorn click rich prometheus_client".split()
)
"""Modules through which disk, network, clock, chance or other processes reach a program."""

IMPURE_CALLS = frozenset({"open", "input", "print", "exec", "eval", "__import__"})
IMPURE_METHODS = frozenset({"now", "utcnow", "today"})

FORBIDDEN_NAMES = re.compile(
    r"(.*_)?(utils?|common|helpers?|core|types|misc|managers?|shared|lib|base|stuff|tools)(_.*)?", re.IGNORECASE
)
MAX_LINES = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One module's import of another of ours: dotted names, and the line (from 1) that says so."""

    importer: str
    imported: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One source file: its dotted name (a package's is that of its folder), path and parsed source."""

    name: str
    path: Path
    tree: ast.Module
    lines: int


class Tree:
    """The modules of `packages` under `root`, by dotted name. Raises `SyntaxError` on a file that is no Python."""

    def __init__(self, root: Path, packages: tuple[str, ...] = PACKAGES) -> None:
        self.root = root
        self.packages = packages
        self.modules: dict[str, Module] = {}
        for package in packages:
            for path in sorted((root / package).rglob("*.py")):
                parts = list(path.relative_to(root).with_suffix("").parts)
                if parts[-1] == "__init__":
                    parts.pop()
                source = path.read_text(encoding="utf-8")
                name = ".".join(parts)
                self.modules[name] = Module(
                    name=name, path=path, tree=ast.parse(source, str(path)), lines=len(source.splitlines())
                )

    def where(self, module: str, line: int) -> str:
        """The place as an editor understands it: `path:line`, relative to the root."""
        return f"{self.modules[module].path.relative_to(self.root)}:{line}"

    def foreign(self, module: Module) -> Iterator[tuple[str, int]]:
        """Each dotted name that `module` imports, ours or not, with its line: at any depth, type checking included."""
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name, node.lineno
            elif isinstance(node, ast.ImportFrom):
                source = self._absolute(module, node)
                for alias in node.names:
                    yield f"{source}.{alias.name}", node.lineno

    def _absolute(self, module: Module, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        inside = module.name.split(".")
        depth = node.level - (module.path.name == "__init__.py")
        return ".".join([*inside[: len(inside) - depth], *([node.module] if node.module else [])])

    def imports(self) -> list[Import]:
        """Every import of one of our modules by another; `from package import name` names the module that has it."""
        found = []
        for module in self.modules.values():
            for dotted, line in self.foreign(module):
                if dotted.split(".")[0] not in self.packages:
                    continue
                target = dotted
                while target not in self.modules and "." in target:
                    target = target.rpartition(".")[0]
                if target != module.name:
                    found.append(Import(importer=module.name, imported=target, line=line))
        return found


def _allowed(imported: str, allowed: frozenset[str]) -> bool:
    return imported in allowed or f"{imported.split('.')[0]}.*" in allowed


def wrong_imports(tree: Tree) -> list[str]:
    """Imports across packages that the design's table does not allow."""
    findings = []
    for edge in tree.imports():
        package = edge.importer.split(".")[0]
        if edge.imported.split(".")[0] != package and not _allowed(edge.imported, MAY_IMPORT[package]):
            findings.append(
                f"{tree.where(edge.importer, edge.line)}: {package} may not import {edge.imported} "
                f"(it may import: {', '.join(sorted(MAY_IMPORT[package])) or 'no other package'})"
            )
    return findings


def imports_of_the_unshipped(tree: Tree) -> list[str]:
    """Imports of folders that are not in the wheel: they work in a checkout and fail for everybody else."""
    return [
        f"{tree.where(module.name, line)}: {dotted.split('.')[0]} is not in the wheel"
        for module in tree.modules.values()
        for dotted, line in tree.foreign(module)
        if dotted.split(".")[0] in {"tests", "bench", "examples", "pytest", "hypothesis", "rfc8785"}
    ]


def cycles(tree: Tree) -> list[str]:
    """Groups of modules that import each other, directly or around corners (strongly connected components)."""
    graph: dict[str, set[str]] = {name: set() for name in tree.modules}
    for edge in tree.imports():
        graph[edge.importer].add(edge.imported)

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for following in graph.get(todo.pop(), ()):
                if following not in seen:
                    seen.add(following)
                    todo.append(following)
        return seen

    reachable = {name: reach(name) for name in graph}
    groups = {
        tuple(sorted(other for other in reachable[name] if name in reachable.get(other, ())))
        for name in graph
        if name in reachable[name]
    }
    return [f"these modules import each other: {', '.join(group)}" for group in sorted(groups)]


def impurities(tree: Tree, pure: frozenset[str] = PURE) -> list[str]:
    """Ways from a pure module to disk, network, clock or chance: its own imports and calls, and those of what it imports."""
    graph: dict[str, list[str]] = {}
    for edge in tree.imports():
        graph.setdefault(edge.importer, []).append(edge.imported)
    findings = []
    for start in sorted(pure & tree.modules.keys()):
        came_from: dict[str, str | None] = {start: None}
        todo = [start]
        while todo:
            name = todo.pop(0)
            way, step = [], came_from[name]
            while step is not None:
                way.append(step)
                step = came_from[step]
            via = f" (reached from {' <- '.join(way)})" if way else ""
            findings += [f"{finding}{via}" for finding in _impure_lines(tree, tree.modules[name])]
            for following in graph.get(name, ()):
                if following in tree.modules and following not in came_from:
                    came_from[following] = name
                    todo.append(following)
    return findings


def _impure_lines(tree: Tree, module: Module) -> Iterator[str]:
    for dotted, line in tree.foreign(module):
        parts = dotted.split(".")
        if any(".".join(parts[: end + 1]) in IMPURE_IMPORTS for end in range(len(parts))):
            yield f"{tree.where(module.name, line)}: a pure module imports {dotted}"
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            yield f"{tree.where(module.name, node.lineno)}: a pure module calls {node.func.id}()"
        if isinstance(node.func, ast.Attribute) and node.func.attr in IMPURE_METHODS:
            yield f"{tree.where(module.name, node.lineno)}: a pure module asks the clock by .{node.func.attr}()"


def bad_names(tree: Tree) -> list[str]:
    """Modules and folders whose name says nothing about what they own."""
    return [
        f"{module.path.relative_to(tree.root)}: a name that says nothing: call it by the noun that it owns"
        for module in tree.modules.values()
        if FORBIDDEN_NAMES.fullmatch(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", module.name.split(".")[-1]))
    ]


def too_long(tree: Tree, exceptions: Mapping[str, str], limit: int = MAX_LINES) -> list[str]:
    """Modules that nobody reads in one sitting, beside those that `exceptions` names with a reason; and idle exceptions."""
    findings = [
        f"{module.path.relative_to(tree.root)}: {module.lines} lines, more than {limit}: cut it by what it owns"
        for module in tree.modules.values()
        if module.lines > limit and module.name not in exceptions
    ]
    return findings + [
        f"the exception for {name} is idle: remove it"
        for name in exceptions
        if name not in tree.modules or tree.modules[name].lines <= limit
    ]


def work_at_import(tree: Tree) -> list[str]:
    """Statements that do something as soon as a module is imported: loops, `with`, and calls for their effect."""
    findings = []
    for module in tree.modules.values():
        for node in module.tree.body:
            call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await)
            if call or isinstance(node, ast.For | ast.While | ast.With):
                findings.append(f"{tree.where(module.name, node.lineno)}: work at import: put it into a function")
    return findings


def unexplained_packages(tree: Tree) -> list[str]:
    """Packages and folders inside them whose `__init__.py` is missing or has no docstring."""
    findings = []
    for module in tree.modules.values():
        if module.path.name == "__init__.py" and not ast.get_docstring(module.tree):
            findings.append(f"{module.path.relative_to(tree.root)}: no docstring: say what the package owns")
        package = module.path.parent / "__init__.py"
        if not package.is_file():
            findings.append(f"{package.relative_to(tree.root)}: missing")
    return sorted(set(findings))


def unexplained_exceptions(tree: Tree) -> list[str]:
    """Comments that switch a check off without a reason; what a file has explained once, it need not repeat."""
    findings = []
    switch = re.compile(r"#\s*(?:noqa:\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*|type:\s*ignore\[[^]]*\])")
    code = re.compile(r"[A-Z]+\d+|[a-z]+(?:-[a-z]+)*(?=[,\]])")
    for module in tree.modules.values():
        explained: set[str] = set()
        for number, line in enumerate(module.path.read_text(encoding="utf-8").splitlines(), start=1):
            matches = list(switch.finditer(line))
            codes = {found for match in matches for found in code.findall(match[0])}
            reason = switch.sub("", line[matches[0].start() :]) if matches else ""
            if re.search(r"[A-Za-z]{3}", reason):
                explained |= codes
            elif matches and not codes <= explained:
                findings.append(f"{tree.where(module.name, number)}: {matches[0][0]}: say why")
    return findings


def package_arrows(tree: Tree) -> set[tuple[str, str]]:
    """(importer, imported) for each pair of packages joined by at least one import."""
    pairs = {(edge.importer.split(".")[0], edge.imported.split(".")[0]) for edge in tree.imports()}
    return {(importer, imported) for importer, imported in pairs if importer != imported}


def drawn_arrows(markdown: str) -> set[tuple[str, str]] | None:
    """The arrows `a --> b` of the Mermaid picture that says `%% arrows: imports`; None when there is no such picture."""
    for picture in re.findall(r"^```mermaid\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL):
        if re.search(r"^\s*%% arrows: imports\s*$", picture, re.MULTILINE):
            arrow = re.compile(r"^\s*(\w+)(?:\W[^\n]*?)??\s*-->\s*(?:\|[^|\n]*\|)?\s*(\w+)", re.MULTILINE)
            return {(importer, imported) for importer, imported in arrow.findall(picture)}
    return None
