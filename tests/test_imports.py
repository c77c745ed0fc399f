"""Who may import whom (design: architecture). Read from the source text: nothing has to be imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ("portal_client", "dispatcher", "trainer_image")

# Package → the packages of ours that it may import besides itself.
MAY_IMPORT = {
    "portal_client": set[str](),
    "dispatcher": {"portal_client"},
    "trainer_image": {"portal_client"},
    "local_stack": {"portal_client"},
}

# Library → the only shipped files that may import it: one adapter for each, to be replaced in one place.
ONLY_IN = {
    "azure.storage.queue": {"dispatcher/queue/azure.py"},
    "kubernetes": {"dispatcher/cluster/client.py"},
    # The queue's adapter gives the SDK a pool as wide as its threads are many; it makes no call of its own.
    "requests": {"portal_client/client.py", "dispatcher/queue/azure.py", "trainer_image/storage/azure_ranges.py"},
}

# Heavy or foreign to a package: the dispatcher's image has no torch, the trainer's no Kubernetes client.
NEVER_IN = {
    "dispatcher": {"torch", "numpy", "sklearn", "azure.storage.blob"},
    "portal_client": {"torch", "numpy", "azure", "kubernetes"},
    "trainer_image": {"kubernetes", "azure.storage.queue"},
}

# Decisions: they get time, settings and the world as parameters.
PURE = (
    "portal_client/statuses.py",
    "portal_client/model_ids.py",
    "portal_client/progress_text.py",
    "dispatcher/launch/request.py",
    "dispatcher/decisions/admission.py",
    "dispatcher/decisions/codes.py",
    "dispatcher/launch/job_spec.py",
    "dispatcher/launch/job_template.py",
    "dispatcher/decisions/outcome.py",
    "dispatcher/decisions/phases.py",
    "dispatcher/decisions/pod_failure.py",
    "dispatcher/decisions/waiting.py",
    "dispatcher/decisions/disruptions.py",
    "dispatcher/queue/poison.py",
    "dispatcher/cluster/objects.py",
    "dispatcher/cli/clock_skew.py",
    "dispatcher/decisions/kueue.py",
    "dispatcher/web/request_rows.py",
    "dispatcher/web/status_rows.py",
)
IMPURE_MODULES = {
    "time",
    "os",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "threading",
    "requests",
    "kubernetes",
}
CLOCKS = {"now", "utcnow", "today"}


@dataclass(frozen=True)
class Import:
    """module: absolute; `from a import b` gives both "a" and "a.b". typing_only: never executed."""

    file: str
    line: int
    module: str
    typing_only: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def _files(package: str) -> list[Path]:
    return sorted(p for p in (ROOT / package).rglob("*.py") if "node_modules" not in p.parts)


def _imports(path: Path) -> Iterator[Import]:
    file = path.relative_to(ROOT).as_posix()
    tree = ast.parse(path.read_text(encoding="utf-8"), file)
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    package = list(path.relative_to(ROOT).with_suffix("").parts[:-1])
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        for name in names:
            yield Import(file, node.lineno, name, id(node) in typing_only)


def _is(module: str, library: str) -> bool:
    return module == library or module.startswith(library + ".")


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_the_house_allows(package: str) -> None:
    ours = {*MAY_IMPORT, "tests", "benchmarks"}
    found = [
        str(imported)
        for path in _files(package)
        for imported in _imports(path)
        if (top := imported.module.split(".")[0]) in ours and top not in {package, *MAY_IMPORT[package]}
    ]
    assert found == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_by_its_one_adapter(library: str) -> None:
    found = [
        str(imported)
        for package in SHIPPED
        for path in _files(package)
        for imported in _imports(path)
        if _is(imported.module, library) and imported.file not in ONLY_IN[library] and not imported.typing_only
    ]
    assert found == []


@pytest.mark.parametrize("package", NEVER_IN)
def test_no_image_carries_a_library_that_it_does_not_need(package: str) -> None:
    found = [
        str(imported)
        for path in _files(package)
        for imported in _imports(path)
        for library in NEVER_IN[package]
        if _is(imported.module, library)
    ]
    assert found == []


@pytest.mark.parametrize("file", PURE)
def test_decisions_read_no_clock_and_no_environment(file: str) -> None:
    path = ROOT / file
    impure = [str(found) for found in _imports(path) if found.module.split(".")[0] in IMPURE_MODULES]
    clocks = [
        f"{file}:{node.lineno} calls {ast.unparse(node.func)}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS
    ]
    assert impure + clocks == []


def test_the_rules_name_files_that_exist() -> None:
    named = {*PURE, *(file for files in ONLY_IN.values() for file in files)}
    assert sorted(file for file in named if not (ROOT / file).is_file()) == []
