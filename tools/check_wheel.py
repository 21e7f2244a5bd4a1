"""Checks a wheel: that it names the licences of everything in it and, with `--published`, that it runs where it says.

For each crate of the native module the wheel has a licence text and an entry in the SBOM. A published wheel is for each
Python from 3.10 and for Linux with glibc 2.28, uses no symbol of a later glibc (auditwheel), and is at most 15 MB.

Usage: python tools/check_wheel.py [--target TRIPLE] [--published] WHEEL
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

from third_party import ZIG_TEXTS, Crate, crates_of_module, host, output

MAXIMUM_BYTES = 15_000_000
GLIBC = "2_28"
TOOLCHAIN_TEXTS = ("rust-standard-library.html", *ZIG_TEXTS)


class Wheel:
    """What is inside of a wheel."""

    def __init__(self, path: Path) -> None:
        """Reads the list of files."""
        self.path = path
        self.archive = zipfile.ZipFile(path)
        self.names = self.archive.namelist()

    def text(self, pattern: str) -> str:
        """The file of `*.dist-info` whose path there matches, or an empty text if the wheel has none."""
        found = [name for name in self.names if re.fullmatch(rf"[^/]+\.dist-info/{pattern}", name)]
        return self.archive.read(found[0]).decode("utf-8") if found else ""


def licensed(document: str) -> set[Crate]:
    """The crates that `crates.txt` lists, each with a text in the same file."""
    listed = re.findall(r"^(\S+) (\S+): .+ \[([\d, ]+)\]$", document, re.MULTILINE)
    texts = re.findall(r"^={9,}\n\[(\d+)\]\n(?:.+\n)+?-{9,}\n(?=.)", document, re.MULTILINE)
    return {Crate(name, version) for name, version, numbers in listed if {*numbers.split(", ")} <= {*texts}}


def described(sbom: str) -> set[Crate]:
    """The crates that an SBOM (CycloneDX) lists."""
    components: list[dict[str, Any]] = json.loads(sbom)["components"] if sbom else []
    return {Crate(component["name"], component["version"]) for component in components}


def contents(wheel: Wheel, target: str) -> list[str]:
    """What is missing in the wheel."""
    crates = set(crates_of_module(target))
    found = {
        "licence text in licenses/third-party/crates.txt": licensed(wheel.text("licenses/third-party/crates.txt")),
        "component in the SBOM, sboms/jobrota.cyclonedx.json": described(wheel.text(r"sboms/jobrota\.cyclonedx\.json")),
    }
    problems = [f"{crate} has no {what}" for what, has in found.items() for crate in sorted(crates - has)]
    if not wheel.text("licenses/LICENSE"):
        problems.append("the licence of jobrota, licenses/LICENSE, is missing")
    listed = re.findall(r"^License-File: (.+)$", wheel.text("METADATA"), re.MULTILINE)
    files = {name.split("/licenses/", 1)[1] for name in wheel.names if ".dist-info/licenses/" in name}
    problems += [f"METADATA does not list licenses/{name}" for name in sorted(files - {*listed})]
    return problems


def published(wheel: Wheel, target: str) -> list[str]:
    """What is wrong with the wheel for a release: its name, its size, its symbols, the texts of the toolchain."""
    platform = f"manylinux_{GLIBC}_{target.split('-')[0]}"
    problems = []
    if not re.fullmatch(rf"jobrota-[\d.]+\w*-cp310-abi3-{platform}\.whl", wheel.path.name):
        problems.append(f"its name does not end with cp310-abi3-{platform}.whl")
    if (size := wheel.path.stat().st_size) > MAXIMUM_BYTES:
        problems.append(f"it has {size:,} bytes, and may have {MAXIMUM_BYTES:,}")
    audit = json.loads(output(sys.executable, "-m", "auditwheel", "show", "--json", str(wheel.path.resolve())))
    if audit["overall_tag"] != platform:
        problems.append(f"it needs {audit['overall_tag']}: {audit['versioned_symbols']} {audit['external_libs']}")
    texts = (f"licenses/third-party/{name}" for name in TOOLCHAIN_TEXTS)
    return problems + [f"{name} is missing" for name in texts if not wheel.text(re.escape(name))]


def main() -> None:
    """Prints what is wrong with the wheel, and then ends with exit code 1."""
    parser = argparse.ArgumentParser(description="Checks the contents of a wheel, and whether it can be published.")
    parser.add_argument("--target", help="the target that the wheel is compiled for (default: this machine)")
    parser.add_argument("--published", action="store_true", help="also check name, size and symbols (needs auditwheel)")
    parser.add_argument("wheel", type=Path)
    options = parser.parse_args()
    wheel, target = Wheel(options.wheel), options.target or host()
    problems = contents(wheel, target) + (published(wheel, target) if options.published else [])
    for problem in problems:
        print(f"{options.wheel}: {problem}", file=sys.stderr)
    if problems:
        sys.exit(1)
    print(f"{options.wheel}: {options.wheel.stat().st_size:,} bytes, licences and SBOM complete")


if __name__ == "__main__":
    main()
