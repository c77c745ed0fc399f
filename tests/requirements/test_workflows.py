"""The public repository's workflows: what they run is pinned, and what they may is little."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.world.repository import ROOT

FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = sorted(path.name for path in FOLDER.glob("*.yml"))


def _read(name: str) -> tuple[str, dict[str, Any]]:
    text = (FOLDER / name).read_text(encoding="utf-8")
    return text, yaml.safe_load(text)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_an_action_is_pinned_by_its_commit_and_its_version_stands_beside(name: str) -> None:
    text, _ = _read(name)
    used = re.findall(r"uses: (.+)", text)
    assert used
    for action in used:
        pinned = re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)
        assert pinned or action == "./.github/workflows/ci.yml", action


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_job_may_read_the_code_and_no_more_unless_it_says_what(name: str) -> None:
    _, said = _read(name)
    assert said["permissions"] == {"contents": "read"}
    more = {job: set(what["permissions"]) for job, what in said["jobs"].items() if "permissions" in what}
    assert more == (
        {"images": {"contents", "packages", "id-token", "attestations"}, "release": {"contents"}}
        if name == "release.yml"
        else {}
    )


@pytest.mark.parametrize("name", WORKFLOWS)
def test_no_text_of_a_stranger_is_pasted_into_a_command(name: str) -> None:
    _, said = _read(name)
    runs = [step["run"] for job in said["jobs"].values() for step in job.get("steps", []) if "run" in step]
    assert all("${{" not in run for run in runs)


def test_what_the_workflows_and_dependabot_name_is_there() -> None:
    _, ci = _read("ci.yml")
    _, release = _read("release.yml")
    folders = ci["jobs"]["images"]["strategy"]["matrix"]["folder"]
    assert [one["folder"] for one in release["jobs"]["images"]["strategy"]["matrix"]["include"]] == folders
    assert all((ROOT / folder / "Dockerfile").exists() for folder in folders)
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))["updates"]
    places = {one["package-ecosystem"]: one["directory"] for one in updates}
    assert (ROOT / places["npm"].lstrip("/") / "package-lock.json").exists()
    assert set(places) == {"pip", "npm", "github-actions"}
