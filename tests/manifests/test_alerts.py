"""Every alert fires where it must and nowhere else: tests/manifests/alerts.yaml, run by Prometheus' own promtool."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.world.manifests.monitoring import ALERTS, RULES

SITUATIONS = yaml.safe_load((Path(__file__).parent / "alerts.yaml").read_text(encoding="utf-8"))

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: apt-get install prometheus)"
)


def _expected() -> list[dict[str, Any]]:
    return [expected for situation in SITUATIONS["tests"] for expected in situation["alert_rule_test"]]


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_seen_to_fire_and_to_be_silent(alert: str) -> None:
    fires = {bool(expected["exp_alerts"]) for expected in _expected() if expected["alertname"] == alert}
    assert fires == {True, False}


def test_only_alerts_that_exist_are_looked_at() -> None:
    # An alert of an unknown name is silent for promtool.
    assert {expected["alertname"] for expected in _expected()} <= set(ALERTS)


@needs_promtool
def test_alerts_fire_where_they_must_and_nowhere_else(tmp_path: Path) -> None:
    # Who is told what is the question, not in which words: promtool would compare those, too.
    groups = [
        {**group, "rules": [{**rule, "annotations": {}} for rule in group["rules"]]}
        for group in RULES["spec"]["groups"]
    ]
    _write(tmp_path / "rules.yaml", {"groups": groups})
    _write(tmp_path / "tests.yaml", {"rule_files": ["rules.yaml"], **SITUATIONS})
    _promtool("test", "rules", str(tmp_path / "tests.yaml"))


@needs_promtool
def test_expressions_and_the_templates_of_their_words_can_be_read(tmp_path: Path) -> None:
    _write(tmp_path / "rules.yaml", RULES["spec"])
    _promtool("check", "rules", str(tmp_path / "rules.yaml"))


def _write(path: Path, content: Any) -> None:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def _promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
