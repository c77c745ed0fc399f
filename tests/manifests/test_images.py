"""The two Dockerfiles: what they promise can be read from them; TEST_IMAGES=1 builds and runs them with podman."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sysconfig
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

from requirements.lock import pins
from requirements.sbom import bill
from tests.world.manifests.kustomized import Object, containers, needs_kubectl, pods
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
    assert others == ([] if folder == "dispatcher" else ["TORCH=cuda", "COMPILER=on"])
    assert re.fullmatch(r"BASE_IMAGE=\S+:\d+\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", default), (
        "a release, a variant, a Debian, and the digest that decides"
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
def test_dependencies_are_the_locked_ones_of_its_own(folder: str) -> None:
    # tests/requirements holds each of these to its hashes.
    installs = " ".join(rest for word, rest in _instructions(folder) if word == "RUN")
    torch = ["torch-${TORCH}"] if folder == "trainer_image" else []
    assert re.findall(r"--requirement requirements/(\S+)\.txt", installs) == ["build", *torch, EXTRAS[folder]]
    assert "/opt/venv/bin/python check" in installs


@each_image
def test_the_image_tells_what_is_in_it_and_its_maker_stays_outside(folder: str) -> None:
    installs = " ".join(rest for word, rest in _instructions(folder) if word == "RUN")
    place = "/opt/venv/lib/python3*/site-packages"
    assert f"/opt/build/bin/python sbom.py training-dispatcher {place} /opt/venv/sbom.cdx.json" in installs
    copied = [rest for word, rest in _final(folder) if word == "COPY"]
    assert copied == ["--from=build /opt/build/passwd /opt/build/group /etc/", "--from=build /opt/venv /opt/venv"]


@each_image
def test_only_its_own_code_is_in_an_image(folder: str) -> None:
    copied = [rest.split()[:-1] for word, rest in _instructions(folder) if word == "COPY" and "--from" not in rest]
    assert {name for sources in copied for name in sources} == {
        *("pyproject.toml", "README.md", "LICENSE", "requirements/build.txt", f"requirements/{EXTRAS[folder]}.txt"),
        "requirements/sbom.py",
        *(["requirements/torch-*.txt"] if folder == "trainer_image" else []),
        *("training_common", "portal_client", folder),
    }
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert "*" in ignored
    names = {name for sources in copied for name in sources}
    assert {f"!{name.partition('/')[0]}" for name in names} <= set(ignored)


@each_image
def test_the_labels_tell_the_version_that_is_built(folder: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    (labels,) = [rest for word, rest in _final(folder) if word == "LABEL"]
    assert f'org.opencontainers.image.version="{version}"' in labels
    assert 'org.opencontainers.image.licenses="Apache-2.0"' in labels


def test_both_dockerfiles_build_in_the_same_way() -> None:
    def build_stage(folder: str) -> list[tuple[str, str]]:
        stage = _instructions(folder)[: -len(_final(folder))]
        own = {f"requirements/{EXTRAS[folder]}.txt": "own.txt", f"{folder} ./{folder}": "code ./code"}
        own[" && rm -r /opt/venv/lib/python3*/site-packages/kubernetes/aio"] = ""
        own[" requirements/torch-*.txt"] = ""
        for word, neutral in own.items():
            stage = [(name, rest.replace(word, neutral)) for name, rest in stage]
        return [(name, rest) for name, rest in stage if "TORCH" not in rest]

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
    reason="set TEST_IMAGES=1 (and BASE_IMAGE=..., TORCH=cpu where need be) to build the images with podman",
)
@pytest.mark.timeout(1200)
@each_image
def test_the_image_builds_and_its_program_answers(folder: str) -> None:
    tag = f"localhost/test-images/{folder.replace('_', '-')}:test"
    chosen = [name for name in ("BASE_IMAGE", "TORCH") if os.environ.get(name)]
    base = [f"--build-arg={name}={os.environ[name]}" for name in chosen]
    subprocess.run(["podman", "build", *base, "-f", f"{folder}/Dockerfile", "-t", tag, "."], cwd=ROOT, check=True)
    restricted = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--network=none"]
    done = subprocess.run(
        ["podman", "run", "--rm", *restricted, tag, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout
    bill = subprocess.run(
        ["podman", "run", "--rm", "--entrypoint=cat", *restricted, tag, "/opt/venv/sbom.cdx.json"],
        capture_output=True,
        text=True,
        check=True,
    )
    listed = {canonicalize_name(part["name"]): part["version"] for part in json.loads(bill.stdout)["components"]}
    assert (
        listed.items() >= {canonicalize_name(name): version for name, version in pins(EXTRAS[folder]).items()}.items()
    )


def test_the_bill_of_materials_follows_its_schema_and_names_every_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the environment of these tests, made as the images make theirs."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "315532800")
    place = Path(sysconfig.get_path("purelib"))
    text = bill("training-dispatcher", place)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    said = json.loads(text)
    assert said["metadata"]["component"]["name"] == "training-dispatcher"
    listed = {canonicalize_name(part["name"]): part for part in said["components"]}
    installed = {canonicalize_name(found.name): found.version for found in distributions(path=[str(place)])}
    assert {name: part["version"] for name, part in listed.items()} == {
        name: version for name, version in installed.items() if name != "training-dispatcher"
    }
    assert listed["requests"]["purl"] == f"pkg:pypi/requests@{installed['requests']}"
    assert listed["msgspec"]["licenses"] == [{"license": {"id": "BSD-3-Clause"}}]
    needs = {one["ref"]: one.get("dependsOn", []) for one in said["dependencies"]}
    assert listed["urllib3"]["bom-ref"] in needs[listed["requests"]["bom-ref"]]
    assert listed["torch"]["bom-ref"] in needs[said["metadata"]["component"]["bom-ref"]]
    assert bill("training-dispatcher", place) == text, "the same packages give the same bytes"
    with pytest.raises(SystemExit, match="no-such-package is not installed"):
        bill("no-such-package", place)
