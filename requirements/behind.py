"""Says which of the pinned packages have newer releases, and which were withdrawn from the index. `make behind`

One line each: the package, the version that is pinned, the newest that runs where the project does, and what keeps that
out. Exit code 1 where a pinned version was withdrawn, 2 where the index does not answer. It looks at Python packages
alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import requests
from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version
from pip._internal.models.index import PyPI

from requirements.lock import FILES, ROOT, TORCH, pins, usable

# The oldest Python that is supported: a release that leaves it behind cannot be taken.
PYTHON = "3.11"


@dataclass(frozen=True)
class Finding:
    """What the index says of one pinned package."""

    name: str
    pinned: str
    newest: str
    # Why it was withdrawn; None where it was not.
    withdrawn: str | None

    @property
    def behind(self) -> bool:
        return Version(self.newest) > Version(self.pinned)


def _fits(python: str | None) -> bool:
    try:
        return SpecifierSet(python or "").contains(PYTHON)
    except InvalidSpecifier:
        # Old releases ask for `>=3.6.*`; a client of today ignores that.
        return True


def judge(name: str, pinned: str, files: Iterable[dict[str, Any]]) -> Finding:
    """files: what the index says of the package, each with `filename`, `yanked` and `requires-python` (PEP 691)."""
    newest = Version(pinned)
    withdrawn: str | None = "the index has it no longer"
    for file in files:
        try:
            version = parse_wheel_filename(file["filename"])[1]
        except InvalidWheelFilename:
            # A source archive, or a wheel of a name that was never allowed.
            continue
        if not usable(file["filename"]):
            continue
        yanked = file.get("yanked") or False
        if version == Version(pinned):
            # One that was not withdrawn is enough: the others may be of another platform.
            withdrawn = (yanked if isinstance(yanked, str) else "no reason given") if yanked and withdrawn else None
        if version > newest and not yanked and not version.is_prerelease and _fits(file.get("requires-python")):
            newest = version
    return Finding(name, pinned, str(newest), withdrawn)


def ranges() -> dict[str, SpecifierSet]:
    """What pyproject.toml allows of the packages that it names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lists = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()]
    lists += project["dependency-groups"].values()
    found: dict[str, SpecifierSet] = {}
    for requirement in (Requirement(text) for texts in lists for text in texts):
        name = canonicalize_name(requirement.name)
        found[name] = found.get(name, SpecifierSet()) & requirement.specifier
    return found


def _held(found: Finding, allowed: dict[str, SpecifierSet]) -> str:
    if found.name in allowed:
        return "" if allowed[found.name].contains(found.newest) else f"pyproject.toml asks for {allowed[found.name]}"
    return "torch names its version" if TORCH.fullmatch(found.name) else ""


def ask(index: str, known: dict[str, str]) -> list[Finding]:
    """Raises requests.RequestException."""

    def one(item: tuple[str, str]) -> Finding:
        name, pinned = item
        accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
        answer = session.get(f"{index}/{name}/", headers=accept, timeout=30)
        answer.raise_for_status()
        return judge(name, pinned, answer.json()["files"])

    with requests.Session() as session, ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, known.items()))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make behind", description=__doc__.partition("\n")[0] if __doc__ else None)
    # Where pip installs from by itself, by pip's own word.
    index = os.environ.get("PIP_INDEX_URL") or PyPI.simple_url
    parser.add_argument("--index", default=index, help=f"the index to ask ({index})")
    index = parser.parse_args(arguments).index.rstrip("/")
    # The +cpu builds are of the same release.
    known = {canonicalize_name(n): v for file in FILES if file != "torch-cpu" for n, v in pins(file).items()}
    try:
        findings = ask(index, dict(sorted(known.items())))
    except requests.RequestException as error:
        print(f"error: {index} does not answer as an index of packages: {error}", file=sys.stderr)
        return 2
    allowed = ranges()
    for found in findings:
        if found.withdrawn is not None:
            print(f"{found.name:30} {found.pinned:18} WITHDRAWN: {found.withdrawn}")
        if found.behind:
            print(f"{found.name:30} {found.pinned:18} {found.newest:18} {_held(found, allowed)}".rstrip())
    behind, withdrawn = sum(f.behind for f in findings), sum(f.withdrawn is not None for f in findings)
    print(f"{behind} of {len(findings)} packages are behind, {withdrawn} were withdrawn")
    return 1 if withdrawn else 0


if __name__ == "__main__":
    sys.exit(main())
