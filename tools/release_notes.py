"""Prints the section of the changelog for the version that a tag names: `python tools/release_notes.py v0.1.0`.

The release workflow runs it before it builds anything. It ends with an error unless the tag is the version in
Cargo.toml, and the changelog has this version with the date of its release.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def version(cargo: str) -> str:
    """The version of the package, from the text of Cargo.toml. It is nowhere else."""
    found = re.search(r'^\[package\]\n(?:[^\[].*\n)*?version = "(.+)"$', cargo, re.MULTILINE)
    if found is None:
        sys.exit("Cargo.toml has no version below [package]: add one, which the tag of the release repeats")
    return found[1]


def notes(tag: str, cargo: str, changelog: str) -> str:
    """The changes of the version that the tag names."""
    current = version(cargo)
    if tag != f"v{current}":
        sys.exit(f"the tag is {tag} and Cargo.toml has version {current}: tag v{current}, or change the version first")
    for section in re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        if heading.split()[:1] != [current]:
            continue
        if not re.fullmatch(rf"{re.escape(current)} \(\d{{4}}-\d\d-\d\d\)", heading):
            sys.exit(
                f"CHANGELOG.md has the heading '{heading}': write the date of the release: '{current} (2027-01-31)'"
            )
        return body.strip() + "\n"
    sys.exit(f"CHANGELOG.md has no section '## {current} (DATE)': write what changed since the last version")


def main() -> None:
    """Prints the notes."""
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/release_notes.py TAG")
    cargo, changelog = ((REPOSITORY / name).read_text(encoding="utf-8") for name in ("Cargo.toml", "CHANGELOG.md"))
    print(notes(sys.argv[1], cargo, changelog), end="")


if __name__ == "__main__":
    main()
