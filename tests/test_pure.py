"""Pure modules call no clock. Which modules are pure, and what they may import, say the contracts in pyproject.toml."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from tests.world.repository import ROOT

CLOCKS = {"now", "utcnow", "today"}


def _pure_files() -> list[Path]:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = [found for found in config["contracts"] if found["name"].startswith("Pure modules")]
    places = [ROOT / module.replace(".", "/") for module in contract["source_modules"]]
    return [
        file for place in places for file in ([place.with_suffix(".py")] if not place.is_dir() else place.rglob("*.py"))
    ]


@pytest.mark.parametrize("file", _pure_files(), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_pure_module_calls_no_clock(file: Path) -> None:
    calls = [
        f"line {node.lineno} calls {ast.unparse(node.func)}"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS
    ]
    assert calls == []
