"""Which code trains: part of a run's key, so that a changed program or plug-in does not go on with the old one's state.

Read from files and package metadata alone; nothing is imported. What cannot be found this way (a program's own
interpreter and its packages) is not part of it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from trainer_image.config.model_config import Config
from trainer_image.config.settings import Settings
from trainer_image.tasks.registry import GROUP, installed_path

# What is code beside a script that argv names.
SOURCES = re.compile(r"\.(py|pyx|ipynb|sh|bash|pl|rb|r|jl|lua|js|mjs|ts|c|cc|cpp|cu|h|hpp|java)", re.IGNORECASE)
# What argv may name besides, and decides a training as well. Other files may be what the program itself writes.
CONFIGURATIONS = re.compile(r"(\.(json|yaml|yml|toml|ini|cfg|conf))?", re.IGNORECASE)
# Of more source files, or beside more files of any kind, only the script's own folder counts.
MOST_SOURCES, MOST_ENTRIES = 2000, 20_000
# Of a larger file, which is hardly code, the beginning and the size.
MOST_BYTES = 64 * 1024**2
# Their own versions do not make a checkpoint unusable: a security update of the image is no other training.
_RUNS_OTHERS = re.compile(
    r"(python|pypy|perl|ruby|node|lua|julia|rscript|java|sh|bash|dash|zsh|ksh|env|nice|timeout|torch|torchrun|accelerate"
    r"|deepspeed|mpirun)[0-9.]*"
)


def of(config: Config, settings: Settings) -> dict[str, str]:
    """Name → digest or version of what trains. Empty words of a program's argv, and what is not there, are left out."""
    if config.task == "command":
        apart = [path.resolve() for path in (settings.out, settings.data, settings.work_dir) if path is not None]
        found = _program(config.command.argv, Path.cwd(), apart)
        # Better than nothing, where all that argv names is the image's.
        return found or ({"image": settings.image} if settings.image else {})
    # By the rules of version numbers a patch trains as the one before it did.
    found = {"trainer": ".".join(_version("training-dispatcher").split(".")[:2])}
    if config.custom.entry_point is not None:
        found |= _plugin(config.custom.entry_point)
    return found


def changed(now: Mapping[str, str], before: Mapping[str, str]) -> list[str]:
    """The names whose code differs, sorted."""
    return sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))


def is_still(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether a program that began as `before` is the same one `now`: nothing of it has changed.

    What has come since is not asked for: programs write sources below their own folder, and so many files that `of`
    looks no further than that folder; a person who adds one changes another to use it.
    """
    further = ((name, Path.cwd() / name) for name in before.keys() - now.keys())
    return bool(before) and before.items() <= {**now, **_digests(further)}.items()


def _plugin(entry_point: str) -> dict[str, str]:
    """The package that registers it, version and files, and the versions of what it needs and the trainer does not."""
    ours = {_plain(name) for name in _needed("training-dispatcher", extras=True)} | {"training-dispatcher"}
    found: dict[str, str] = {}
    for distribution in metadata.distributions(path=installed_path()):
        points = (point for point in distribution.entry_points if point.group == GROUP)
        if any(f"{point.module}:{point.attr}" == entry_point for point in points):
            found |= {distribution.name: distribution.version}
            found |= {name: _version(name) for name in _needed(distribution.name) if _plain(name) not in ours}
            found |= _installed(distribution)
    return found | _package(entry_point.partition(":")[0].partition(".")[0])


def _installed(distribution: metadata.Distribution) -> dict[str, str]:
    listed = [file for file in distribution.files or () if not file.parts[0].endswith((".dist-info", ".egg-info"))]
    paths = ((file.as_posix(), Path(str(file.locate()))) for file in listed if ".." not in file.parts)
    return _digests((name, path) for name, path in paths if path.suffix not in (".pyc", ".pth"))


def _package(name: str) -> dict[str, str]:
    """The files of a package or module where it is installed: one that is edited in place is listed nowhere."""
    before = sys.path[:]
    sys.path[:] = installed_path()
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    finally:
        sys.path[:] = before
    if spec is None:
        return {}
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    if not folders:
        return _digests([(f"{name}.py", Path(spec.origin or ""))])
    found: dict[str, str] = {}
    for folder in folders:
        files = _below(folder, every=True, apart=())
        found |= _digests((f"{name}/{path.relative_to(folder).as_posix()}", path) for path in files)
    return found


def _needed(distribution: str, *, extras: bool = False) -> list[str]:
    """What it requires directly; none where it is not installed. extras: also what only some of its users need"""
    try:
        lines = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return []
    kept = (line for line in lines if extras or "extra ==" not in line)
    return sorted({found[0] for line in kept if (found := re.match(r"[\w.-]+", line))})


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"


def _plain(name: str) -> str:
    """As PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _program(argv: Sequence[str], folder: Path, apart: Sequence[Path]) -> dict[str, str]:
    """The files that the words name, the sources beside and below them, and modules that -m names."""
    words = [part for word in argv[1:] for part in _parts(word)]
    program = shutil.which(argv[0])
    found: dict[str, str] = {}
    if program is not None and not _RUNS_OTHERS.fullmatch(Path(program).name.lower()):
        files = [Path(program), *_named(Path(program), apart)]
        found |= _digests((os.path.relpath(path, folder), path) for path in files)
    for before, word in zip(["", *words], words, strict=False):
        if before in ("-m", "--module") and re.fullmatch(r"\w+(\.\w+)*", word):
            found |= _module(word.partition(".")[0], folder, apart)
        found |= _digests((os.path.relpath(path, folder), path) for path in _named(folder / word, apart) if word)
    return found


def _named(path: Path, apart: Sequence[Path]) -> list[Path]:
    """The code that a word of argv stands for; none where it is no path."""
    try:
        if (path / "__main__.py").is_file():
            return _below(path, every=False, apart=apart)
        if not path.is_file():
            return []
    except (OSError, ValueError):  # too long for a name
        return []
    if SOURCES.fullmatch(path.suffix):
        return [path, *_below(path.parent, every=False, apart=apart)]
    return [path] if CONFIGURATIONS.fullmatch(path.suffix) else []


def _parts(word: str) -> Iterator[str]:
    """The word, what it sets (--config=a.yaml), and the words of a line for a shell (sh -c "python train.py")."""
    yield word
    if word.startswith("-") and "=" in word:
        yield word.partition("=")[2]
    if " " in word:
        try:
            yield from shlex.split(word)
        except ValueError:
            return


def _module(name: str, folder: Path, apart: Sequence[Path]) -> dict[str, str]:
    if _RUNS_OTHERS.fullmatch(name) or name in sys.stdlib_module_names:
        return {}
    for place in [folder, *(Path(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry)]:
        if (place / f"{name}.py").is_file():
            return _digests((os.path.relpath(path, place), path) for path in _below(place, every=False, apart=apart))
        if (place / name).is_dir():
            files = _below(place / name, every=False, apart=apart)
            return _digests((os.path.relpath(path, place), path) for path in files)
    return _package(name)


def _below(folder: Path, *, every: bool, apart: Sequence[Path]) -> list[Path]:
    """The sources, or every file, in the folder and below it; in the folder alone where there are too many.

    apart: folders of data, which may hold copies of code
    """
    found: list[Path] = []
    seen = 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if _is_of_the_program(Path(place, name), apart))
        seen += len(folders) + len(names)
        chosen = [Path(place, name) for name in sorted(names) if not name.startswith(".") and not name.endswith(".pyc")]
        found += [path for path in chosen if every or SOURCES.fullmatch(path.suffix)]
        if seen > MOST_ENTRIES or len(found) > MOST_SOURCES:
            return [path for path in found if path.parent == folder][:MOST_SOURCES]
    return found


def _is_of_the_program(folder: Path, apart: Sequence[Path]) -> bool:
    strange = folder.name.startswith(".") or folder.name in ("__pycache__", "node_modules", "site-packages")
    return not strange and not (folder / "pyvenv.cfg").exists() and folder.resolve() not in apart


def _digests(files: Iterable[tuple[str, Path]]) -> dict[str, str]:
    """Name → SHA-256 of the content. What is not there, may not be read, or is no file is left out."""
    found: dict[str, str] = {}
    for name, path in files:
        try:
            if not path.is_file():
                continue  # a pipe would be waited for until somebody writes into it, whatever its name
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size <= MOST_BYTES:
                    found[name] = hashlib.file_digest(file, "sha256").hexdigest()
                else:
                    found[name] = f"{size}-{hashlib.sha256(file.read(MOST_BYTES)).hexdigest()}"
        except OSError:
            continue
    return found
