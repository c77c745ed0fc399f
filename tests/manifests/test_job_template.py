"""The Job templates: accepted by the dispatcher, complete for the trainer, and alike but for what they are for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dispatcher.config.settings import Settings
from dispatcher.factories import bounds_of, defaults_of
from dispatcher.launch.job_spec import build_job
from dispatcher.launch.job_template import TemplateError, load_template
from dispatcher.launch.request import TrainingRequest, decode
from local_stack.cluster.client import StandInCluster
from tests.world.manifests.kustomized import (
    VARIANTS,
    has_two_namespaces,
    needs_kubectl,
    of_kind,
    settings_of,
    template_of,
)
from tests.world.repository import MANIFESTS
from trainer_image.config import settings as trainer_settings

pytestmark = needs_kubectl

every_variant = pytest.mark.parametrize("variant", VARIANTS)
MESSAGE = '{"task": "train", "model_container_name": "model-123", "dataset_container_name": "dataset-xyz"}'


def _job(variant: str, folder: Path) -> dict[str, Any]:
    """The Job that the dispatcher makes of the variant's template, by the variant's settings."""
    file = folder / "job-template.yaml"
    file.write_text(template_of(variant), encoding="utf-8")
    environment = {**settings_of(variant), "JOB_TEMPLATE": str(file)}
    if "AZURE_STORAGE_QUEUE_URL" not in environment:
        environment["AZURE_STORAGE_CONNECTION_STRING"] = "AccountKey=secret"
    settings = Settings.read(environment)
    request = decode(MESSAGE, bounds_of(settings))
    assert isinstance(request, TrainingRequest)
    template = load_template(template_of(variant), settings.trainer_image)
    return build_job(template, request, message_id="m", queued_at=1.8e9, defaults=defaults_of(settings))


@every_variant
def test_the_image_is_the_overlays_and_not_the_templates(variant: str, tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="TRAINER_IMAGE"):
        load_template(template_of(variant))
    (trainer,) = _job(variant, tmp_path)["spec"]["template"]["spec"]["containers"]
    assert trainer["image"] == settings_of(variant)["TRAINER_IMAGE"]


@every_variant
def test_the_completed_job_is_valid_for_kubernetes(variant: str, tmp_path: Path) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    kubernetes_validate.validate(_job(variant, tmp_path), "1.36", strict=True)


@every_variant
def test_the_trainer_starts_with_the_environment_of_the_completed_job(variant: str, tmp_path: Path) -> None:
    (trainer,) = _job(variant, tmp_path)["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry.get("value", "secret") for entry in trainer["env"]}
    maps = of_kind(variant, "ConfigMap")
    for entry in trainer["env"]:
        if reference := entry.get("valueFrom", {}).get("configMapKeyRef"):
            environment[entry["name"]] = maps[reference["name"]]["data"][reference["key"]]
    read = trainer_settings.from_mapping(environment)
    assert read.dispatched
    shared = read.connection_string or read.account_url
    # In two namespaces the files of its own Secret are all that a training opens storage and the portal with.
    assert str(read.credentials_dir) == "/credentials" if has_two_namespaces(variant) else shared
    assert not (has_two_namespaces(variant) and (shared or "API_KEY" in environment))
    mounts = {mount["mountPath"] for mount in trainer["volumeMounts"]}
    assert str(read.work_dir) in mounts
    for name in ("HOME", "TMPDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        assert any(environment[name] == mount or environment[name].startswith(f"{mount}/") for mount in mounts), name


@every_variant
def test_the_stand_in_cluster_takes_the_completed_job(variant: str, tmp_path: Path, cluster: StandInCluster) -> None:
    path = "/apis/batch/v1/namespaces/default/jobs?dryRun=All&fieldValidation=Strict"
    taken = cluster.api("POST", path, _job(variant, tmp_path))
    assert taken["spec"]["suspend"] is True


@every_variant
def test_what_the_volumes_may_hold_fits_the_limits(variant: str) -> None:
    spec = yaml.safe_load(template_of(variant))["spec"]["template"]["spec"]
    (trainer,) = spec["containers"]
    on_disk = [v["emptyDir"]["sizeLimit"] for v in spec["volumes"] if v["emptyDir"].get("medium") != "Memory"]
    in_memory = [v["emptyDir"]["sizeLimit"] for v in spec["volumes"] if v["emptyDir"].get("medium") == "Memory"]
    assert sum(map(_mebibytes, on_disk)) < _mebibytes(trainer["resources"]["limits"]["ephemeral-storage"])
    assert sum(map(_mebibytes, in_memory)) <= _mebibytes(trainer["resources"]["limits"]["memory"]) / 4


def _mebibytes(quantity: str) -> int:
    matched = re.fullmatch(r"([0-9]+)(Mi|Gi)", quantity)
    assert matched, quantity
    return int(matched[1]) * (1024 if matched[2] == "Gi" else 1)


def test_a_training_gets_a_gpu_in_production_and_none_locally() -> None:
    def gpus(variant: str) -> Any:
        (trainer,) = yaml.safe_load(template_of(variant))["spec"]["template"]["spec"]["containers"]
        return trainer["resources"]["limits"].get("nvidia.com/gpu")

    assert gpus("production") == "1"
    assert gpus("local") is None
    assert settings_of("local")["MAX_GPUS"] == "0"


# Where each other template may differ from manifests/base/job-template.yaml, as paths into the Job.
DIFFERENCES = {
    "components/spot": {
        "spec.backoffLimit",
        "spec.template.spec.containers.env",
        "spec.template.spec.terminationGracePeriodSeconds",
        "spec.template.spec.tolerations",
    },
    "components/workload-identity-trainings": {
        "spec.template.metadata.labels.azure.workload.identity/use",
        "spec.template.spec.containers.env",
    },
    "overlays/local": {
        "spec.template.spec.containers.resources.limits.ephemeral-storage",
        "spec.template.spec.containers.resources.limits.memory",
        "spec.template.spec.containers.resources.limits.nvidia.com/gpu",
        "spec.template.spec.containers.resources.requests.cpu",
        "spec.template.spec.containers.resources.requests.ephemeral-storage",
        "spec.template.spec.containers.resources.requests.memory",
        "spec.template.spec.terminationGracePeriodSeconds",
        "spec.template.spec.tolerations",
        "spec.template.spec.volumes",
    },
}


@pytest.mark.parametrize("folder", DIFFERENCES)
def test_a_change_of_the_base_template_is_not_forgotten_in_the_others(folder: str) -> None:
    base = yaml.safe_load((MANIFESTS / "base" / "job-template.yaml").read_text(encoding="utf-8"))
    other = yaml.safe_load((MANIFESTS / folder / "job-template.yaml").read_text(encoding="utf-8"))
    assert _differences(base, other, "") == DIFFERENCES[folder]


def _differences(one: Any, other: Any, path: str) -> set[str]:
    """Paths of what differs. Lists of one entry are walked into, other lists are one value."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other})
        return {p for key in keys for p in _differences(one.get(key), other.get(key), f"{path}.{key}".lstrip("."))}
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other) == 1:
        return _differences(one[0], other[0], path)
    return set() if one == other else {path}


def test_on_spot_nodes_checkpoints_are_more_frequent_than_the_trainers_default(tmp_path: Path) -> None:
    (trainer,) = _job("production+spot", tmp_path)["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry.get("value", "secret") for entry in trainer["env"]}
    assert trainer_settings.from_mapping(environment).checkpoint_seconds < trainer_settings.Settings.checkpoint_seconds


def test_an_azure_identity_replaces_every_connection_string() -> None:
    variant = "one_namespace+all"
    deployment = of_kind(variant, "Deployment")["training-dispatcher"]
    for text in (str(deployment), yaml.safe_dump(yaml.safe_load(template_of(variant)))):
        assert "AZURE_STORAGE_CONNECTION_STRING" not in text
    assert deployment["spec"]["template"]["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    for name in ("training-dispatcher", "model-training"):
        account = of_kind(variant, "ServiceAccount")[name]
        assert "azure.workload.identity/client-id" in account["metadata"]["annotations"]
