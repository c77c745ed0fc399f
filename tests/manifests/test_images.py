"""The two Dockerfiles: what they promise can be read from them; TEST_IMAGES=1 builds and runs them with podman."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib

import pytest

from tests.world.kustomized import Object, containers, needs_kubectl, pods
from tests.world.repository import ROOT

EXTRAS = {"dispatcher": "dispatcher", "trainer_image": "trainer"}

each_image = pytest.mark.parametrize("folder", EXTRAS)


def _instructions(folder: str) -> list[tuple[str, str]]:
    """(INSTRUCTION, arguments) in order; continued lines joined, comments left out."""
    lines = (ROOT / folder / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#")).replace("\\\n", " ")
    return [
        (word, " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in text.split("\n")) if word
    ]


def _final(folder: str) -> list[tuple[str, str]]:
    """The instructions of the last stage."""
    instructions = _instructions(folder)
    starts = [number for number, (word, _) in enumerate(instructions) if word == "FROM"]
    assert len(starts) == 2
    return instructions[starts[-1] :]


@each_image
def test_every_stage_begins_with_the_base_image_that_the_builder_chose(folder: str) -> None:
    instructions = _instructions(folder)
    (default, *others) = [rest for word, rest in instructions if word == "ARG"]
    assert others == ([] if folder == "dispatcher" else ["COMPILER=on"])
    assert re.fullmatch(r"BASE_IMAGE=\S+:\d+\.\d+\.\d+-slim-\w+", default), (
        "pinned to a release, a variant and a Debian"
    )
    assert [rest.split()[0] for word, rest in instructions if word == "FROM"] == ["${BASE_IMAGE}"] * 2


@each_image
def test_the_image_has_no_root_no_pip_and_no_healthcheck_and_a_compiler_only_where_models_are_compiled(
    folder: str,
) -> None:
    final = _final(folder)
    assert ("USER", "65532:65532") in final
    assert final.index(("USER", "65532:65532")) == max(n for n, (word, _) in enumerate(final) if word == "USER")
    assert not any(word in ("HEALTHCHECK", "ADD", "VOLUME") for word, _ in final)
    runs = [rest for word, rest in final if word == "RUN"]
    compilers = [rest for rest in runs if re.search(r"\bapt|\bgcc|g\+\+", rest)]
    assert len(compilers) == (folder == "trainer_image")
    # It can be left out, and leaves nothing behind that differs from build to build.
    assert all(rest.startswith('[ "$COMPILER" = off ] || {') and "/var/lib/apt/lists/" in rest for rest in compilers)
    assert not any(re.search(r"\bpip\b", rest) for rest in runs)
    (venv,) = [rest for word, rest in _instructions(folder) if "--without-pip" in rest]
    assert "/opt/venv" in venv


@each_image
def test_dependencies_are_the_tested_versions_of_one_extra(folder: str) -> None:
    installs = " ".join(rest for word, rest in _instructions(folder) if word == "RUN")
    assert "--constraint constraints.txt" in installs
    assert re.findall(r"\.whl\)\[(\w+)\]", installs) == [EXTRAS[folder]]
    # Whatever is not in constraints.txt is pinned where it is installed.
    assert re.search(r"install --quiet pip==\S+ setuptools==\S+", installs)


@each_image
def test_only_its_own_code_is_in_an_image(folder: str) -> None:
    copied = [rest.split()[:-1] for word, rest in _instructions(folder) if word == "COPY" and "--from" not in rest]
    assert {name for sources in copied for name in sources} == {
        *("pyproject.toml", "constraints.txt", "README.md", "LICENSE"),
        *("training_common", "portal_client", folder),
    }
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert "*" in ignored
    assert {f"!{name}" for sources in copied for name in sources} <= set(ignored)


@each_image
def test_the_labels_tell_the_version_that_is_built(folder: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    (labels,) = [rest for word, rest in _final(folder) if word == "LABEL"]
    assert f'org.opencontainers.image.version="{version}"' in labels
    assert 'org.opencontainers.image.licenses="Apache-2.0"' in labels


def test_both_dockerfiles_build_in_the_same_way() -> None:
    def build_stage(folder: str) -> list[tuple[str, str]]:
        stage = _instructions(folder)[: -len(_final(folder))]
        own = {f"[{EXTRAS[folder]}]": "[extra]", f"{folder} ./{folder}": "code ./code"}
        own[" && rm -r /opt/venv/lib/python3*/site-packages/kubernetes/aio"] = ""
        for word, neutral in own.items():
            stage = [(name, rest.replace(word, neutral)) for name, rest in stage]
        return stage

    assert build_stage("dispatcher") == build_stage("trainer_image")


@needs_kubectl
@pytest.mark.parametrize("variant", ["production", "local"])
def test_pods_run_as_the_user_that_the_image_has(variant: str) -> None:
    for who, pod in pods(variant).items():
        context: Object = pod["spec"]["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"]) == (65532, 65532), who
        for container in containers(pod):
            # The images' ENTRYPOINT is the program; the local stack's stand-in cluster relies on it, too.
            assert container["name"] not in ("dispatcher", "trainer") or "command" not in container


@pytest.mark.skipif(
    not os.environ.get("TEST_IMAGES") or shutil.which("podman") is None,
    reason="set TEST_IMAGES=1 (and BASE_IMAGE=... where the default cannot be pulled) to build the images with podman",
)
@pytest.mark.timeout(1200)
@each_image
def test_the_image_builds_and_its_program_answers(folder: str) -> None:
    tag = f"localhost/test-images/{folder.replace('_', '-')}:test"
    base = [f"--build-arg=BASE_IMAGE={os.environ['BASE_IMAGE']}"] if os.environ.get("BASE_IMAGE") else []
    subprocess.run(["podman", "build", *base, "-f", f"{folder}/Dockerfile", "-t", tag, "."], cwd=ROOT, check=True)
    restricted = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--network=none"]
    done = subprocess.run(
        ["podman", "run", "--rm", *restricted, tag, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout
