"""What requirements/ promises: every package that is installed is in it, by one version and by its hashes."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from requirements.lock import FILES, HERE, SETS, TORCH, pins
from tests.world.repository import ROOT, read

PROJECT = tomllib.loads(read("pyproject.toml"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
ASKED = {
    "develop": PROJECT["project"]["dependencies"]
    + [text for extra, texts in EXTRAS.items() if extra != "quality" for text in texts],
    "quality": PROJECT["project"]["dependencies"] + EXTRAS["quality"],
    "dispatcher": PROJECT["project"]["dependencies"] + EXTRAS["dispatcher"],
    "trainer": PROJECT["project"]["dependencies"] + EXTRAS["trainer"],
    "build": PROJECT["dependency-groups"]["build"],
}


def _entries(file: str) -> list[str]:
    """One string for each requirement, its lines joined."""
    text = (HERE / f"{file}.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith(("#", "--"))]


def _normalized(file: str) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in pins(file).items()}


@pytest.mark.parametrize("file", FILES)
def test_pip_accepts_only_wheels_with_one_of_the_hashes_that_are_written(file: str) -> None:
    assert "\n--only-binary :all:\n" in (HERE / f"{file}.txt").read_text(encoding="utf-8")
    entries = _entries(file)
    assert entries
    for entry in entries:
        assert re.fullmatch(r"[\w.-]+==[\w.+!]+( ; [^#]+?)?( +--hash=sha256:[0-9a-f]{64})+", entry), entry


def test_a_package_has_one_version_in_all_files() -> None:
    known: dict[str, str] = {}
    for file in FILES:
        for name, version in _normalized(file).items():
            assert known.setdefault(name, version) == version, f"{name} in {file}.txt: run `make lock`"


def test_the_builds_of_pytorch_with_and_without_cuda_are_of_one_release() -> None:
    cpu = re.findall(r"^torch==(\S+?)(?:\+cpu)? ;", (HERE / "torch-cpu.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert cpu == [pins("torch-cuda")["torch"]] * 2
    assert not any(TORCH.fullmatch(name) for file in SETS for name in _normalized(file))


@pytest.mark.parametrize("name", SETS)
def test_what_pyproject_asks_for_is_pinned_within_its_range(name: str) -> None:
    pinned = _normalized("torch-cuda") | _normalized(name)
    for asked in map(Requirement, ASKED[name]):
        version = pinned.get(canonicalize_name(asked.name))
        assert version is not None, f"{asked.name} is not in {name}.txt: run `make lock`"
        assert asked.specifier.contains(version), f"{asked} in {name}.txt: run `make lock`"


# What is asked here is what is installed; `make quality` alone installs its rivals, and pip checks them then.
@pytest.mark.parametrize("name", sorted(SETS.keys() - {"quality"}))
def test_a_file_has_all_that_its_packages_need_and_nothing_else(name: str) -> None:
    pinned = _normalized(name)
    reached: set[tuple[str, str]] = set()
    # What is needed, and by which extra of it: none, or one.
    here = [asked for asked in map(Requirement, ASKED[name]) if asked.marker is None or asked.marker.evaluate()]
    waiting = [(asked, extra) for asked in here for extra in ("", *asked.extras)]
    while waiting:
        asked, extra = waiting.pop()
        package = canonicalize_name(asked.name)
        if (package, extra) in reached or (TORCH.fullmatch(package) and package != "torch"):
            continue
        reached.add((package, extra))
        for need in map(Requirement, requires(package) or []):
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                waiting += [(need, more) for more in ("", *need.extras)]
    needed = {package for package, _ in reached} - {"torch"}
    # A marker says where else it is needed.
    elsewhere = {canonicalize_name(entry.partition("==")[0]) for entry in _entries(name) if " ; " in entry}
    assert needed - set(pinned) == set(), "run `make lock`"
    assert set(pinned) - needed <= elsewhere, "run `make lock`"


def test_make_and_images_install_from_these_files_alone() -> None:
    for path in ("Makefile", "dispatcher/Dockerfile", "trainer_image/Dockerfile"):
        text = "\n".join(line for line in read(path).replace("\\\n", " ").splitlines() if not line.startswith("#"))
        commands = [
            part for part in re.split(r"&&|\|\||[;\n]", text) if re.search(r"pip\b.* install |\(PIP\) install ", part)
        ]
        assert len(commands) >= 3, path
        for command in commands:
            own = "--editable ." in command or "/opt/build/ours/" in command
            hashed = "--require-hashes" in command and "--requirement requirements/" in command
            assert own != hashed, f"{path}: {command}"
            assert "--no-deps" in command, f"{path}: {command}"
    assert not (ROOT / "constraints.txt").exists()


def test_npm_installs_what_the_lock_file_says_with_the_hashes_in_it() -> None:
    assert '"ci"' in read("local_stack/azurite.py")
    packages = json.loads(read("local_stack/azurite/package-lock.json"))["packages"]
    bare = [name for name, said in packages.items() if name and not said.get("integrity", "").startswith("sha512-")]
    assert bare == []
