"""Checks how the files of the project depend on each other, and a few words.

`make lint` runs it. It needs the standard library only, reads the sources as text, and reports:

- circles: files that import each other, directly or through others. A module and the files below it may; no others.
- layers: a file may import from its own room (a directory below `src/`) and from the rooms below it, in the order of
  `LAYERS`.
- `pyo3` outside `src/python/` and `src/lib.rs`: the core builds without Python.
- words that the documentation does not use (`WORDS`).
- time, random numbers and threads that do not come from `src/runtime/environment.rs`, in rooms that a simulation runs.

Rust is read without a compiler: `use` declarations (nested braces, globs, aliases) and paths in the code. A name that a
module re-exports counts twice: as an import of the module that the path names, and of the file that defines the name.
Only `src/lib.rs` does not count as the former. Items under `#[cfg(test)]` do not count. Calls of methods are not seen.

Usage: python3 tools/check_modules.py [ROOT]
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

# The rooms of `src/`, from the top. A room may import from those below it, and rooms of one line not from each other.
LAYERS = (
    ("python",),
    ("doctor",),
    ("sandbox",),
    ("comparison",),
    ("delivery",),
    ("autosys",),
    ("selection",),
    ("inventory",),
    ("viya", "azure"),
    ("ledger",),
    ("delta",),
    ("catalog",),
    ("storage",),
    ("http",),
)
# Files that every room may import, and that may import each other.
GROUND_FLOOR = ("error", "runtime", "stop", "settings", "duration", "columns")
# Rooms that only the named rooms may import, whatever the layers say.
IMPORTED_ONLY_BY = {"sandbox": ("python",)}

# Rooms that a simulation runs by a seed, but for what runs on a real machine only.
SIMULATED = ("delivery", "ledger", "delta", "storage", "autosys")
NOT_SIMULATED = (
    "src/autosys/transport/",  # talks to real programs and servers
    "src/storage/engine.rs",  # hands requests to the runtime of the process
    "src/storage/fsync/",  # flushes real disks
)
OWN_WAYS = re.compile(
    r"\b(?:(?:Utc|Local|Instant|SystemTime)::now|new_v4|rand::|tokio::(?:time|spawn|task)|(?:spawn|join)_blocking"
    r"|thread::(?:sleep|park|scope|spawn|Builder)|std::sync::mpsc)\b|\.elapsed\(\)"
)

WORDS = re.compile(r"\b(nobody|somebody|whoever)\b", re.IGNORECASE)
WORDS_IN = ("src", "python", "docs", "README.md", "CONTRIBUTING.md")

Graph = dict[str, dict[str, set[str]]]
"""For each file, the files that it imports from, with the names."""


# --- Rust -----------------------------------------------------------------------------------------------------------

TOKEN = re.compile(
    r"""(?P<skip>\s+|//[^\n]*)
    |(?P<comment>/\*)
    |(?P<raw>(?:b|c)?r(?P<hashes>\#*)".*?"(?P=hashes))
    |(?P<string>(?:b|c)?"(?:[^"\\]|\\.)*")
    |(?P<char>b?'(?:[^'\\\n]|\\[^u]|\\x[0-9a-fA-F]{2}|\\u\{[0-9a-fA-F_]+\})')
    |(?P<lifetime>'[A-Za-z_]\w*)
    |(?P<ident>(?:r\#)?[A-Za-z_]\w*)
    |(?P<colons>::)
    |(?P<number>\d[\w.]*?(?=\.\.|[^\w.]|$))
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
OPENING = {"(": ")", "[": "]", "{": "}"}
DEFINES = {"fn", "struct", "enum", "union", "trait", "type", "const", "static"}


def tokens(text: str) -> list[str]:
    """Splits Rust into words and signs, without comments. A string becomes `""`."""
    found: list[str] = []
    at = 0
    while at < len(text):
        match = TOKEN.match(text, at)
        assert match is not None, text[at : at + 20]
        at = match.end()
        kind = match.lastgroup
        if kind == "comment":
            depth = 1
            while depth and at < len(text):
                step = re.compile(r"/\*|\*/").search(text, at)
                if step is None:
                    return found
                depth += 1 if step.group() == "/*" else -1
                at = step.end()
        elif kind in ("raw", "hashes", "string", "char"):
            found.append('""')
        elif kind not in ("skip", "lifetime"):
            found.append(match.group().removeprefix("r#"))
    return found


def is_word(token: str) -> bool:
    """Whether the token is a name or a keyword."""
    return token[0].isalpha() or token[0] == "_"


@dataclass
class Use:
    """One name of a `use` declaration: `use a::b as name`; the name of a glob is `*`."""

    path: tuple[str, ...]
    name: str


@dataclass
class Module:
    """A module of the crate: a file, or an inline `mod name { … }` of one."""

    path: tuple[str, ...]
    file: str
    defines: set[str] = field(default_factory=set)
    uses: list[Use] = field(default_factory=list)
    paths: set[tuple[str, ...]] = field(default_factory=set)
    words: set[str] = field(default_factory=set)


class RustReader:
    """Reads one file into modules."""

    def __init__(self, file: str, path: tuple[str, ...], text: str) -> None:
        """Reads `text`, which is the module `path`."""
        self.file = file
        self.tokens = tokens(text)
        self.modules: list[Module] = []
        self.test_modules: set[tuple[str, ...]] = set()
        self.read(Module(path, file), 0, len(self.tokens))

    def closing(self, at: int) -> int:
        """The position after the bracket that closes the one at `at`."""
        depth = 0
        for position in range(at, len(self.tokens)):
            if self.tokens[position] in OPENING:
                depth += 1
            elif self.tokens[position] in (")", "]", "}"):
                depth -= 1
                if depth == 0:
                    return position + 1
        return len(self.tokens)

    def after_item(self, at: int, end: int) -> int:
        """The position after the item, statement or field that begins at `at`."""
        while at < end:
            token = self.tokens[at]
            if token == "{":
                return self.closing(at)
            if token in OPENING:
                at = self.closing(at)
            elif token in (";", ","):
                return at + 1
            elif token in (")", "]", "}"):
                return at
            else:
                at += 1
        return end

    def read(self, module: Module, at: int, end: int) -> None:
        """Reads the tokens from `at` to `end` as the content of `module`."""
        self.modules.append(module)
        depth = 0
        for_tests = False
        while at < end:
            token = self.tokens[at]
            following = self.tokens[at + 1] if at + 1 < end else ""
            if token == "#" and following == "[":
                after = self.closing(at + 1)
                for_tests |= self.tokens[at + 2 : after - 1] == ["cfg", "(", "test", ")"]
                at = after
                continue
            if for_tests:
                for_tests = False
                item = self.tokens[at : self.after_item(at, end)]
                if "mod" in item[:5] and item.index("mod") + 1 < len(item):
                    self.test_modules.add((*module.path, item[item.index("mod") + 1]))
                at += len(item)
            elif token == "use" and (is_word(following) or following in ("{", "::")):
                at = self.read_use(module, at + 1, (), depth == 0)
            elif token == "mod" and following and is_word(following):
                if at + 2 < end and self.tokens[at + 2] == "{":
                    after = self.closing(at + 2)
                    self.read(Module((*module.path, following), self.file), at + 3, after - 1)
                    at = after
                else:
                    at += 2
            elif token == "macro_rules" and following == "!":
                module.defines.add(self.tokens[at + 2])
                at += 3
            elif token in DEFINES and depth == 0 and following and is_word(following) and following not in DEFINES:
                module.defines.add(following)
                at += 2
            elif is_word(token):
                at = self.read_path(module, at, end)
            else:
                depth += (token == "{") - (token == "}")
                at += 1

    def read_path(self, module: Module, at: int, end: int) -> int:
        """Reads the path or the word at `at`, and returns the position after it."""
        path = [self.tokens[at]]
        at += 1
        while at + 1 < end and self.tokens[at] == "::" and is_word(self.tokens[at + 1]):
            path.append(self.tokens[at + 1])
            at += 2
        module.words.add(path[0])
        if len(path) > 1:
            module.paths.add(tuple(path))
        return at

    def read_use(self, module: Module, at: int, prefix: tuple[str, ...], at_top: bool) -> int:
        """Reads one branch of a `use` tree and returns the position after it."""
        path = prefix
        while at < len(self.tokens):
            token = self.tokens[at]
            if token == "{":
                after = self.closing(at)
                at += 1
                while at < after - 1:
                    at = self.read_use(module, at, path, at_top)
                    at += self.tokens[at] == ","
                return after
            if token == "*":
                module.uses.append(Use(path, "*"))
                return at + 1
            if is_word(token) and token != "as":
                if token != "self" or not path:
                    path = (*path, token)
                at += 1
                if self.tokens[at] == "::":
                    at += 1
                    continue
                name = path[-1]
                if self.tokens[at] == "as":
                    name = self.tokens[at + 1]
                    at += 2
                module.uses.append(Use(path, name))
                return at
            if token == "::":
                path = ("::",)
                at += 1
                continue
            return at + 1
        return at


class Crate:
    """The modules of a crate, and what their names lead to."""

    def __init__(self, root: Path, source: str = "src") -> None:
        """Reads all files below `source` that are not tests."""
        self.modules: dict[tuple[str, ...], Module] = {}
        readers = []
        for file in sorted((root / source).rglob("*.rs")):
            parts = file.relative_to(root / source).with_suffix("").parts
            path = parts[:-1] if parts[-1] in ("mod", "lib", "main") else parts
            if "tests" not in path:
                readers.append(RustReader(file.relative_to(root).as_posix(), path, file.read_text(encoding="utf-8")))
        test_modules = {path for reader in readers for path in reader.test_modules}
        for module in (module for reader in readers for module in reader.modules):
            if not any(module.path[:length] in test_modules for length in range(1, len(module.path) + 1)):
                self.modules[module.path] = module

    def find(
        self,
        module: tuple[str, ...],
        path: tuple[str, ...],
        seen: frozenset[object] = frozenset(),
        to_module: bool = False,
    ) -> Module | str | None:
        """What `path` names in `module`: a module, or the file that defines the item. None is outside of the crate.

        A module and a function can have one name: `to_module` asks for the module.
        """
        if (module, path, to_module) in seen or not path:
            return None
        seen |= {(module, path, to_module)}
        first, rest = path[0], path[1:]
        here = self.modules.get(module)
        if first == "crate":
            found: Module | str | None = self.modules.get(())
        elif first == "self":
            found = here
        elif first == "super":
            found = self.modules.get(module[:-1])
        elif here is not None:
            found = self.name_in(here, first, seen, item=not rest and not to_module)
        else:
            return None
        while rest and isinstance(found, Module):
            if rest[0] == "super":
                found, rest = self.modules.get(found.path[:-1]), rest[1:]
                continue
            inner = self.name_in(found, rest[0], seen, item=len(rest) == 1 and not to_module)
            if inner is None:
                return found.file
            found, rest = inner, rest[1:]
        return found

    def name_in(self, module: Module, name: str, seen: frozenset[object], item: bool) -> Module | str | None:
        """What `name` is in `module`: an item rather than a module, or the other way round."""
        child = self.modules.get((*module.path, name))
        if child is not None and not item:
            return child
        if name in module.defines:
            return module.file
        for use in sorted(module.uses, key=lambda use: use.name == "*"):
            if use.name == name and use.path != (name,):
                found = self.find(module.path, use.path, seen, to_module=not item)
            elif use.name == "*":
                found = self.exact(module.path, (*use.path, name), seen)
            else:
                continue
            if found is not None:
                return found
        return child

    def exact(self, module: tuple[str, ...], path: tuple[str, ...], seen: frozenset[object]) -> Module | str | None:
        """Like `find` for the name of a glob: None also when the module that the glob names does not have the name."""
        target = self.find(module, path[:-1], seen, to_module=True)
        return self.name_in(target, path[-1], seen, item=True) if isinstance(target, Module) else None

    def graph(self) -> Graph:
        """What each file imports."""
        graph: Graph = {module.file: {} for module in self.modules.values()}
        for module in self.modules.values():
            for path in self.imported(module):
                found = self.find(module.path, path)
                if not isinstance(found, str):
                    continue
                for file in {found, self.module_named(module, path)} - {module.file}:
                    graph[module.file].setdefault(file, set()).add(path[-1])
        return graph

    def module_named(self, module: Module, path: tuple[str, ...]) -> str:
        """The file of the last module that a path of `module` names; the module's own if that is the crate's root."""
        for length in range(len(path) - 1, 0, -1):
            found = self.find(module.path, path[:length], to_module=True)
            if isinstance(found, Module):
                return found.file if found.path else module.file
        return module.file

    def is_module(self, module: Module, path: tuple[str, ...]) -> bool:
        """Whether `path` names a module in `module`."""
        return isinstance(self.find(module.path, path, to_module=True), Module)

    def imported(self, module: Module) -> Iterator[tuple[str, ...]]:
        """The paths of `module` that can lead to other files."""
        for path in module.paths:
            if path[0] in ("crate", "self", "super") or self.is_module(module, path[:1]):
                yield path  # else it begins with a name that a `use` brought, or with one of the module's own
        for use in module.uses:
            if use.name != "*":
                yield use.path
                continue
            target = self.find(module.path, use.path, to_module=True)
            if isinstance(target, Module):
                for word in module.words | {path[0] for path in module.paths}:
                    if self.exact(module.path, (*use.path, word), frozenset()) is not None:
                        yield (*use.path, word)
            elif isinstance(target, str):  # the variants of an enum
                yield use.path


# --- Python ---------------------------------------------------------------------------------------------------------


class Package:
    """The modules of a Python package."""

    def __init__(self, root: Path, source: str = "python", package: str = "jobrota") -> None:
        """Reads all files of the package."""
        self.files: dict[str, str] = {}
        self.trees: dict[str, ast.Module] = {}
        for file in sorted((root / source / package).rglob("*.py*")):
            if file.suffix not in (".py", ".pyi"):
                continue
            parts = file.relative_to(root / source).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            self.files[name] = file.relative_to(root).as_posix()
            self.trees[name] = ast.parse(file.read_text(encoding="utf-8"))

    def imports(self, module: str) -> Iterator[tuple[str, str | None, str]]:
        """Each import of the package: the module, the name in it (None for the module itself) and the name here."""
        is_package = self.files[module].endswith("/__init__.py")
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name, None, alias.asname or alias.name
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parts = module.split(".")
                    parts = parts[: len(parts) - node.level + is_package]
                    base = ".".join([*parts, base] if base else parts)
                for alias in node.names:
                    yield base, alias.name, alias.asname or alias.name

    def file_of(self, module: str, name: str | None, seen: frozenset[object] = frozenset()) -> str | None:
        """The file that defines `name` of `module`, through what packages re-export."""
        if (module, name) in seen:
            return None
        if name is not None and f"{module}.{name}" in self.files:
            return self.files[f"{module}.{name}"]
        if module not in self.files:
            return None
        if name is not None:
            for base, inner, alias in self.imports(module):
                if alias == name and inner is not None:
                    found = self.file_of(base, inner, seen | {(module, name)})
                    if found is not None:
                        return found
        return self.files[module]

    def graph(self) -> Graph:
        """What each file imports."""
        graph: Graph = {file: {} for file in self.files.values()}
        for module, file in self.files.items():
            for base, name, _ in self.imports(module):
                found = self.file_of(base, name)
                named = self.files[base] if "." in base and base in self.files else file
                for other in {found, named} - {file, None}:
                    graph[file].setdefault(str(other), set()).add(name or base)
        return graph


# --- the rules ------------------------------------------------------------------------------------------------------


def own_module(file: str) -> str:
    """The module that a file is, without its suffix: `src/a` for `src/a.rs` and for `src/a/mod.rs`."""
    stem = file.rpartition(".")[0]
    directory, _, name = stem.rpartition("/")
    return directory if name in ("mod", "lib", "__init__") else stem


def is_part_of(file: str, module: str) -> bool:
    """Whether the file is below the module that the file `module` is."""
    return file != module and own_module(file).startswith(own_module(module) + "/")


def circles(graph: Graph) -> list[list[str]]:
    """Files that import each other, but for a module and the files below it.

    Two searches find them. The first leaves out what a file imports from the modules that it is part of, so that it
    finds siblings and whole modules in a circle. The second leaves nothing out, and skips circles within one module: a
    circle that is left runs through a parent module and a file outside of it.
    """
    without_parents = {
        file: {other: names for other, names in imported.items() if not is_part_of(file, other)}
        for file, imported in graph.items()
    }
    found = groups(without_parents)
    for group in groups(graph):
        in_one_module = any(all(file == head or is_part_of(file, head) for file in group) for head in group)
        if not in_one_module and not any(set(smaller) <= set(group) for smaller in found):
            found.append(group)
    return sorted(found)


def groups(graph: Graph) -> list[list[str]]:
    """The strongly connected components of more than one file (Tarjan's algorithm, without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    found: list[list[str]] = []
    for start in sorted(graph):
        if start in index:
            continue
        work: list[tuple[str, Iterator[str]]] = [(start, iter(sorted(graph[start])))]
        index[start] = low[start] = len(index)
        stack.append(start)
        on_stack.add(start)
        while work:
            node, others = work[-1]
            for other in others:
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(sorted(graph.get(other, {})))))
                    break
                if other in on_stack:
                    low[node] = min(low[node], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    group: list[str] = []
                    while not group or group[-1] != node:
                        group.append(stack.pop())
                        on_stack.remove(group[-1])
                    if len(group) > 1:
                        found.append(sorted(group))
    return found


def room(file: str) -> str:
    """The room of a file of `src/`: `delta` for `src/delta/table.rs` and for `src/delta.rs`."""
    return file.split("/")[1].removesuffix(".rs")


def layer_errors(graph: Graph) -> list[str]:
    """Imports of Rust files that the order of the rooms does not allow."""
    rank = {name: -height for height, names in enumerate(LAYERS) for name in names}
    rank |= {name: -len(LAYERS) for name in GROUND_FLOOR}
    errors = []
    for file, imported in sorted(graph.items()):
        own = room(file)
        if own == "lib":
            continue
        if own not in rank:
            errors.append(f"{file}: the room {own!r} is not in LAYERS of tools/check_modules.py")
            continue
        for other, names in sorted(imported.items()):
            target = room(other)
            if target == own or target not in rank:
                continue
            allowed = IMPORTED_ONLY_BY.get(target)
            on_ground = own in GROUND_FLOOR and target in GROUND_FLOOR
            if allowed is not None and own not in allowed:
                errors.append(f"{file} imports {other} ({listed(names)}): only {listed(allowed)} may import {target}")
            elif rank[own] <= rank[target] and not on_ground:
                errors.append(f"{file} imports {other} ({listed(names)}): {target} is not below {own}")
    return errors


def python_errors(root: Path) -> list[str]:
    """Files outside of the Python room that name pyo3."""
    errors = []
    for file in sorted((root / "src").rglob("*.rs")):
        name = file.relative_to(root).as_posix()
        if room(name) not in ("python", "lib") and re.search(r"\bpyo3\b", file.read_text(encoding="utf-8")):
            errors.append(f"{name} names pyo3, which only src/python/ may")
    return errors


def word_errors(root: Path) -> list[str]:
    """Lines with words that the documentation does not use."""
    errors = []
    for place in WORDS_IN:
        files = sorted((root / place).rglob("*")) if (root / place).is_dir() else [root / place]
        for file in files:
            if not file.is_file() or "__pycache__" in file.parts or file.suffix in (".so", ".png"):
                continue
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                if match := WORDS.search(line):
                    where = f"{file.relative_to(root).as_posix()}:{number}"
                    errors.append(f"{where}: {match.group()!r}: name the person or program")
    return errors


def environment_errors(root: Path) -> list[str]:
    """Lines outside of tests that have time, random numbers or threads in their own way."""
    errors = []
    for file in sorted((root / "src").rglob("*.rs")):
        name = file.relative_to(root).as_posix()
        in_tests = file.stem == "tests" or "tests" in file.parts
        if room(name) not in SIMULATED or in_tests or name.startswith(NOT_SIMULATED):
            continue
        text = file.read_text(encoding="utf-8").split("\n#[cfg(test)]\nmod tests {")[0]
        for number, line in enumerate(text.splitlines(), 1):
            if match := OWN_WAYS.search(line.split("//")[0]):
                errors.append(f"{name}:{number}: {match.group()}: use src/runtime/environment.rs")
    return errors


def listed(names: Iterable[str]) -> str:
    """At most seven names in a row."""
    ordered = sorted(names)
    return ", ".join(ordered[:7]) + (f" and {len(ordered) - 7} more" if len(ordered) > 7 else "")


def circle_errors(graph: Graph) -> list[str]:
    """One text for each circle, with the imports that make it one."""
    errors = []
    for group in circles(graph):
        lines = [f"{len(group)} files import each other:"]
        for file in group:
            for other in sorted(set(graph[file]) & set(group)):
                lines.append(f"  {file} -> {other}: {listed(graph[file][other])}")
        errors.append("\n".join(lines))
    return errors


def check(root: Path) -> tuple[list[str], int]:
    """What is wrong below `root`, and the number of files that were read."""
    rust = Crate(root).graph()
    python = Package(root).graph()
    errors = circle_errors(rust) + circle_errors(python) + layer_errors(rust) + python_errors(root) + word_errors(root)
    errors += environment_errors(root)
    return errors, len(rust) + len(python)


def main(arguments: list[str]) -> int:
    """Checks the tree that the command line names, else the one that this file is in."""
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    errors, files = check(root)
    for error in errors:
        print(error, file=sys.stderr)
    if errors:
        print(f"{len(errors)} problems in {files} files", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
