"""Writes the files of this folder: what is installed, by exact version and with the hashes of its wheels. `make lock`

    develop.txt      .venv: every extra of pyproject.toml but `quality`
    quality.txt      what `make quality` installs beside it: the rivals that it ranks, and tables
    dispatcher.txt   the dispatcher's image
    trainer.txt      the trainer's image
    torch-cuda.txt   PyTorch as PyPI has it, with the CUDA libraries that it needs on Linux
    torch-cpu.txt    PyTorch without CUDA, as PyTorch's own index has it for Linux
    build.txt        what builds the images and is in none of them

Versions stay as they are unless pyproject.toml asks for others; `make lock ARGS=--upgrade` takes the newest of all,
`make lock ARGS="--upgrade-package NAME"` of one. Each version is the same in every file. uv resolves for all platforms
at once; only wheels are listed, so that nothing is built, and run, while it is installed. Every package has one for
Python 3.11 to 3.13 on Linux with x86_64 and aarch64, those of .venv on macOS with arm64, too.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import requests
from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import parse_wheel_filename

HERE = Path(__file__).parent
ROOT = HERE.parent
SETS = {
    "develop": ["pyproject.toml", *(f"--extra={name}" for name in ("dispatcher", "trainer", "local", "dev"))],
    "quality": ["pyproject.toml", "--extra", "quality"],
    "dispatcher": ["pyproject.toml", "--extra", "dispatcher"],
    "trainer": ["pyproject.toml", "--extra", "trainer"],
    "build": ["--group", "build"],
}
FILES = (*SETS, "torch-cuda", "torch-cpu")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"

_HEAD = """\
# Written by `make lock`; requirements/lock.py says how.
--only-binary :all:
"""
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
_LINK = re.compile(r'href="[^"]*#sha256=([0-9a-f]{64})"[^>]*>\s*([^<\s]+\.whl)\s*<')
# PyTorch, and what only PyPI's builds of it need.
TORCH = re.compile(r"torch|triton|(nvidia|cuda)-.+")


@dataclass(frozen=True)
class Target:
    """Where packages are installed: a Python and a platform."""

    minor: int
    system: str
    machine: str
    platforms: tuple[str, ...]
    # A package without a wheel for it is refused; elsewhere a wheel is listed where there is one.
    promised: bool

    @cached_property
    def tags(self) -> frozenset[Tag]:
        version = (3, self.minor)
        return frozenset(
            (
                *cpython_tags(version, platforms=self.platforms),
                *compatible_tags(version, f"cp3{self.minor}", platforms=self.platforms),
            )
        )

    def wants(self, marker: str | None) -> bool:
        """Whether a requirement with this marker is installed there."""
        versions = {"python_version": f"3.{self.minor}", "python_full_version": f"3.{self.minor}.0"}
        implementation = {"platform_python_implementation": "CPython", "implementation_name": "cpython"}
        place = {"sys_platform": self.system, "platform_machine": self.machine, "os_name": "posix"}
        place["platform_system"] = self.system.capitalize()
        return marker is None or Marker(marker).evaluate({**versions, **implementation, **place})


def _targets() -> Iterator[Target]:
    # Up to the C library of Debian 12.
    for minor in range(11, 16):
        promised = minor <= 13
        for machine in ("x86_64", "aarch64"):
            old = ("manylinux2014", "manylinux2010", "manylinux1")
            glibc = tuple(f"{name}_{machine}" for name in (*(f"manylinux_2_{n}" for n in range(36, 4, -1)), *old))
            yield Target(minor, "linux", machine, glibc, promised)
            yield Target(minor, "linux", machine, tuple(f"musllinux_1_{n}_{machine}" for n in range(5)), False)
        yield Target(minor, "darwin", "arm64", tuple(mac_platforms((14, 0), "arm64")), promised)


TARGETS = tuple(_targets())


def usable(wheel: str) -> bool:
    """Whether a wheel of this file name can be installed on one of the targets."""
    tags = parse_wheel_filename(wheel)[3]
    return any(tags & target.tags for target in TARGETS)


def lacking(wheels: Iterable[str], marker: str | None, systems: Collection[str]) -> list[str]:
    """The promised targets of these systems that a requirement is for and no wheel fits."""
    tags = {tag for wheel in wheels for tag in parse_wheel_filename(wheel)[3]}
    return [
        f"Python 3.{target.minor} on {target.system} {target.machine}"
        for target in TARGETS
        if target.promised and target.system in systems and target.wants(marker) and not tags & target.tags
    ]


def _text(file: str) -> str:
    path = HERE / f"{file}.txt"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def pins(file: str) -> dict[str, str]:
    """{package: version} of one file of this folder; none where it is not there."""
    return dict(_PIN.findall(_text(file)))


def cpu_hashes(version: str, index: str) -> list[str]:
    """Hashes of PyTorch's builds for Linux without CUDA, from their index; those known so far where it is out of reach.

    Raises SystemExit where it is out of reach and the version is another than so far, or where it has none.
    """
    try:
        answer = requests.get(f"{index}/torch/", timeout=20)
        answer.raise_for_status()
    except requests.RequestException as error:
        entry = rf"^torch=={re.escape(version)}\+cpu .*(?:\n +.*)+"
        known = re.search(entry, _text("torch-cpu"), re.MULTILINE)
        if known is None:
            raise SystemExit(
                f"error: the hashes of torch {version}+cpu stand in {index} only, which cannot be reached "
                f"({type(error).__name__}): run this where it can, or upgrade other packages alone"
            ) from error
        print(f"{index} cannot be reached: the known hashes of torch {version}+cpu stay", file=sys.stderr)
        return re.findall(r"sha256:([0-9a-f]{64})", known[0])
    wheels = {unquote(name): digest for digest, name in _LINK.findall(answer.text)}
    found = [digest for name, digest in wheels.items() if name.startswith(f"torch-{version}+cpu-") and usable(name)]
    if not found:
        raise SystemExit(f"error: {index} has no torch {version}+cpu for Linux: choose a version that it has")
    return found


def _uv(arguments: list[str], output: Path) -> None:
    command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--only-binary", ":all:"]
    command += ["--fork-strategy", "fewest", *arguments, "--output-file", str(output)]
    # The one beside this Python, where there is one.
    beside = Path(sys.executable).with_name("uv")
    command[0] = str(beside) if beside.exists() else "uv"
    try:
        done = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise SystemExit("error: uv is not installed: run `make install` first") from error
    if done.returncode != 0:
        raise SystemExit("error: uv found no versions that fit together; its words stand above")


def _wheels(package: dict[str, Any], systems: Collection[str]) -> dict[str, str]:
    """{file name: hash} of a package of pylock.toml. Raises SystemExit where a promised target has no wheel."""
    wheels = {unquote(wheel["url"].rpartition("/")[2]): wheel["hashes"]["sha256"] for wheel in package["wheels"]}
    missing = lacking(wheels, package.get("marker"), systems)
    if missing:
        name = f"{package['name']} {package['version']}"
        raise SystemExit(f"error: {name} has no wheel for {', '.join(missing)}: choose another version of it")
    return {name: digest for name, digest in wheels.items() if usable(name)}


def _requirement(pin: str, marker: str | None, hashes: Iterable[str]) -> str:
    """One requirement as pip reads it; without hashes pip would refuse it."""
    lines = [pin + (f" ; {marker}" if marker else ""), *(f"    --hash=sha256:{digest}" for digest in sorted(hashes))]
    return " \\\n".join(lines) + "\n"


def lock(arguments: list[str], cpu_index: str = CPU_INDEX) -> dict[str, str]:
    """The new text of each file. arguments: further ones for uv, such as --upgrade."""
    texts = dict.fromkeys(FILES, _HEAD)
    texts["torch-cpu"] += f"--extra-index-url {cpu_index}\n"
    with tempfile.TemporaryDirectory() as folder:
        chosen = Path(folder) / "chosen.txt"
        known = {name: version for file in FILES if file != "torch-cpu" for name, version in pins(file).items()}
        # uv keeps the versions that its output file has so far.
        chosen.write_text("".join(f"{name}=={version}\n" for name, version in known.items()), encoding="utf-8")
        every = [*SETS["develop"], "--extra", "quality", *SETS["build"]]
        _uv([*every, "--no-annotate", "--no-header", *arguments], chosen)
        for name, what in SETS.items():
            resolved = Path(folder) / f"pylock.{name}.toml"
            _uv([*what, "--constraint", str(chosen), "--format", "pylock.toml"], resolved)
            # The images are Linux.
            systems = ("linux", "darwin") if name in ("develop", "quality") else ("linux",)
            for package in tomllib.loads(resolved.read_text(encoding="utf-8"))["packages"]:
                pin, marker = f"{package['name']}=={package['version']}", package.get("marker")
                wheels = _wheels(package, systems)
                if not TORCH.fullmatch(package["name"]):
                    texts[name] += _requirement(pin, marker, wheels.values())
                elif name == "develop":
                    texts["torch-cuda"] += _requirement(pin, marker, wheels.values())
                    if package["name"] == "torch":
                        cpu = cpu_hashes(package["version"], cpu_index)
                        mac = [digest for wheel, digest in wheels.items() if "-macosx_" in wheel]
                        texts["torch-cpu"] += _requirement(f"{pin}+cpu", "sys_platform == 'linux'", cpu)
                        texts["torch-cpu"] += _requirement(pin, "sys_platform == 'darwin'", mac)
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(prog="make lock", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--cpu-index", default=CPU_INDEX, help=f"where torch's +cpu builds are ({CPU_INDEX})")
    options, others = parser.parse_known_args()
    for name, text in lock(others, options.cpu_index.rstrip("/")).items():
        (HERE / f"{name}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
