"""Gathers the licence texts of everything that is linked into the native module.

`make` runs it before each build of a wheel. maturin copies the directory `third-party/` into the wheel, beside the
licence of jobrota (`license-files` in pyproject.toml). The texts are in the sources of the crates, which cargo has on
this machine, because it compiles them.

`crates.txt` has the texts of all crates, each different text once. With `--published`, the directory also has the texts
of what the toolchain links in: the standard library of Rust, and the parts of glibc and LLVM that zig adds.

Usage: python tools/third_party.py [--target TRIPLE] [--published] [DIRECTORY]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
# Names of files at the top of a crate's source, and below it. Below are the licences of other sources that the crate
# contains. `zstd/COPYING` there is the GPL, which zstd also offers, and which zstd-sys does not choose.
OF_CRATE = re.compile(r"(un)?licen[cs]e|copying|copyright|notice|authors", re.IGNORECASE)
OF_PART = re.compile(r"licen[cs]e", re.IGNORECASE)
CODE = {".c", ".h", ".py", ".rs", ".sh"}
# Where zig has the texts of what it links into a library for Linux.
ZIG_TEXTS = {"zig.txt": "LICENSE", "libunwind.txt": "lib/libunwind/LICENSE.TXT", "glibc.txt": "lib/libc/glibc/LICENSES"}


@dataclass(frozen=True, order=True)
class Crate:
    """One version of a crate."""

    name: str
    version: str

    def __str__(self) -> str:
        """As the lists in the wheel name it."""
        return f"{self.name} {self.version}"


@dataclass
class Text:
    """One licence text, and where it is from."""

    content: str
    sources: dict[Crate, list[str]] = field(default_factory=dict)


def output(*command: str) -> str:
    """What a command prints, run in the repository."""
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed, so the licence texts cannot be gathered:\n{done.stderr}")
    return done.stdout


@cache
def host() -> str:
    """The target that cargo compiles for if none is named."""
    found = re.search(r"^host: (\S+)$", output("rustc", "-vV"), re.MULTILINE)
    assert found is not None, "rustc -vV names its host"
    return found[1]


@cache
def crates_of_module(target: str) -> tuple[Crate, ...]:
    """The crates that the native module is compiled from, and macros, whose code it contains. Not jobrota itself."""
    command = ("cargo", "tree", "--locked", "--target", target, "--edges", "normal", "--prefix", "none")
    listed = re.findall(r"^(\S+) v(\S+)", output(*command, "--format", "{p}"), re.MULTILINE)
    return tuple(sorted({Crate(name, version) for name, version in listed if name != "jobrota"}))


def packages(target: str) -> dict[Crate, dict[str, Any]]:
    """What cargo knows of each crate: its licence, and where its source is."""
    command = ("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target)
    found = json.loads(output(*command))["packages"]
    return {Crate(package["name"], package["version"]): package for package in found}


def licence_files(package: dict[str, Any]) -> list[Path]:
    """The files of a crate's source that are licences or notices."""
    root = Path(package["manifest_path"]).parent
    found = [path for path in root.iterdir() if OF_CRATE.match(path.name)]
    found += [path for path in root.glob("*/**/*") if OF_PART.match(path.name)]
    if package["license_file"]:
        found.append(root / package["license_file"])
    return sorted({path for path in found if path.is_file() and path.suffix not in CODE})


def texts_of(crate: Crate, known: dict[Crate, dict[str, Any]]) -> Iterator[tuple[str, Path]]:
    """The texts of a crate, each with the name of its file.

    Some crates are published without a text. The text is then that of another crate of the same repository. A crate
    that offers Apache-2.0 gets the LICENSE of jobrota, because this licence has the same text for each author.
    """
    package = known[crate]
    root = Path(package["manifest_path"]).parent
    if found := licence_files(package):
        yield from ((str(path.relative_to(root)), path) for path in found)
        return
    for other, sibling in sorted(known.items(), key=lambda item: item[0]):
        same = ("repository", "license")
        if all(package[key] and package[key] == sibling[key] for key in same) and (found := licence_files(sibling)):
            yield from ((f"{path.name} of {other}", path) for path in found)
            return
    if re.search(r"Apache-2\.0(?! WITH)", package["license"] or ""):
        yield "Apache-2.0", REPOSITORY / "LICENSE"
        return
    sys.exit(
        f"the source of {crate} ({package['license']}) has no licence text, and so the wheel would have none: "
        f"ask its authors for one, or replace the crate"
    )


def gathered(crates: Iterable[Crate], known: dict[Crate, dict[str, Any]]) -> list[Text]:
    """Each different text once. Texts that differ in white space only are the same."""
    texts: dict[str, Text] = {}
    for crate in crates:
        for name, path in texts_of(crate, known):
            content = path.read_text(encoding="utf-8", errors="replace")
            text = texts.setdefault(" ".join(content.split()), Text(content))
            text.sources.setdefault(crate, []).append(name)
    return list(texts.values())


def document(crates: Iterable[Crate], known: dict[Crate, dict[str, Any]]) -> str:
    """The content of `crates.txt`: the crates with their licences, then the texts."""
    texts = gathered(crates, known)
    lines = ["The native module of jobrota contains code of these crates. Each line names a crate, its licence (SPDX),"]
    lines += ["and the numbers of its texts below.", ""]
    for crate in crates:
        numbers = ", ".join(str(number) for number, text in enumerate(texts, 1) if crate in text.sources)
        lines.append(f"{crate}: {known[crate]['license'] or 'see the text'} [{numbers}]")
    for number, text in enumerate(texts, 1):
        lines += ["", "=" * 100, f"[{number}]"]
        lines += [f"{crate}: {', '.join(names)}" for crate, names in text.sources.items()]
        lines += ["-" * 100, text.content.strip()]
    return "\n".join(lines) + "\n"


def toolchain_texts() -> dict[str, Path]:
    """The texts of what the Rust toolchain and zig link in, by the names that they get in the wheel."""
    sysroot = Path(output("rustc", "--print", "sysroot").strip())
    found = {"rust-standard-library.html": sysroot / "share/doc/rust/COPYRIGHT-library.html"}
    zig = importlib.util.find_spec("ziglang")
    if zig is None or zig.origin is None:
        sys.exit("ziglang is not installed: run `make wheel`, which installs it and then runs this")
    found |= {name: Path(zig.origin).parent / path for name, path in ZIG_TEXTS.items()}
    for path in found.values():
        if not path.is_file():
            sys.exit(f"{path} is missing, and the wheel needs this text: use a toolchain of rustup and ziglang of PyPI")
    return found


def main() -> None:
    """Writes the directory anew."""
    parser = argparse.ArgumentParser(description="Gathers the licence texts of what is linked into the native module.")
    parser.add_argument("--target", help="the target that the module is compiled for (default: this machine)")
    parser.add_argument("--published", action="store_true", help="also the texts of what the toolchain links in")
    parser.add_argument("directory", nargs="?", type=Path, default=REPOSITORY / "third-party")
    options = parser.parse_args()
    target = options.target or host()
    content = document(crates_of_module(target), packages(target))
    toolchain = toolchain_texts() if options.published else {}

    shutil.rmtree(options.directory, ignore_errors=True)
    options.directory.mkdir(parents=True)
    (options.directory / "crates.txt").write_text(content, encoding="utf-8")
    for name, path in toolchain.items():
        shutil.copyfile(path, options.directory / name)


if __name__ == "__main__":
    main()
