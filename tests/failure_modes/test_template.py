"""Failure modes of the Job template: what YAML, GPUs of other kinds and newer Kubernetes make of it."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from dispatcher import factories
from dispatcher.cli.checks import check
from dispatcher.cli.kubectl_yaml import yaml_for_kubectl
from dispatcher.cluster import names
from dispatcher.factories import bounds_of
from dispatcher.launch.job_spec import build_job
from dispatcher.launch.job_template import TemplateError, load_template
from dispatcher.launch.request import MalformedRequest, TrainingRequest, decode
from local_stack.cluster.client import StandInCluster
from tests.dispatcher.launch.built_jobs import DEFAULTS, POD, a_request, a_template, built, changed, trainer_of
from tests.failure_modes.bench import templates
from tests.world.builders import T0, TEMPLATE
from tests.world.simulated.dispatcher import SETTINGS

# What Go's reader of YAML takes for something else than text, beyond what ours does, and what both do.
NO_TEXTS = [
    *(
        "1e5",
        "1E5",
        "0o17",
        "017",
        "0x1f",
        "0b11",
        "1_000",
        "1-000",
        "12e03",
        "1.5e3",
        ".5",
        "5.",
        "+1",
        "-1",
        "123",
        "0",
    ),
    *("yes", "no", "on", "off", "y", "n", "Y", "N", "true", "null", "~", "", "nan", ".nan", "inf", "-.inf", "Infinity"),
    *("next\x85line", "\x85", "line\u2028separator", "\ufeffmark", "a tab\tin it"),
    *(
        "2026-01-01",
        "2026-01-01T00:00:00Z",
        "1:30",
        "12:30:45",
        "<<",
        "=",
        "-",
        "- a",
        "a: b",
        "a #b",
        "&a",
        "*a",
        "!a",
    ),
    *("%a", "@a", "`a", "{}", "[]", "|", ">", "'", '"', " a", "a ", "a\nb", "\t", "é", "\u2028", "?", "? a", ":"),
]


def kubectl(cluster: StandInCluster, text: str) -> dict[str, Any]:
    command = ["kubectl", f"--kubeconfig={cluster.kubeconfig}", "create", "--dry-run=client", "--validate=false"]
    done = subprocess.run(
        [*command, "-o", "json", "-f", "-"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_f53_what_render_prints_is_read_by_kubectl_as_it_was_meant(cluster: StandInCluster) -> None:
    job = built(request=a_request(model_container_name="model-1e5"))
    texts = {f"t{number}": text for number, text in enumerate(NO_TEXTS)}
    job["spec"]["template"]["metadata"]["annotations"] = texts
    read = kubectl(cluster, yaml_for_kubectl(job))
    assert read["metadata"]["labels"][names.MODEL_ID] == "1e5"
    assert read["spec"]["template"]["metadata"]["annotations"] == texts
    assert read["spec"]["template"]["spec"]["containers"] == job["spec"]["template"]["spec"]["containers"]


@pytest.mark.parametrize("text", NO_TEXTS)
def test_f53_a_text_that_another_reader_takes_for_something_else_is_quoted(text: str) -> None:
    printed = yaml_for_kubectl({"a": text})
    assert printed.removeprefix("a: ")[:1] in ("'", '"') or text == "é"
    assert yaml.safe_load(printed) == {"a": text}


def test_f53_ordinary_words_are_printed_as_they_are() -> None:
    assert yaml_for_kubectl({"image": "registry/trainer:1", "number": 3, "path": "/work"}) == (
        "image: registry/trainer:1\nnumber: 3\npath: /work\n"
    )


TWICE = """apiVersion: batch/v1
kind: Job
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: trainer
          image: trainer:1
          env:
            - {name: API_KEY, valueFrom: {secretKeyRef: {name: portal, key: API_KEY}}}
          resources: {limits: {memory: 1Gi, cpu: 1, memory: 2Gi}}
          env:
            - {name: WORK_DIR, value: /work}
"""


def test_f54_a_key_that_stands_in_the_template_twice_is_refused_with_its_lines() -> None:
    with pytest.raises(TemplateError) as caught:
        load_template(TWICE)
    assert sorted(caught.value.problems) == [
        "spec.template.spec.containers[0].env stands there twice, in lines 10 and 13: keep one",
        "spec.template.spec.containers[0].resources.limits.memory stands there twice, in lines 12 and 12: keep one",
    ]


def test_f54_what_only_looks_like_a_key_twice_is_taken() -> None:
    text = TWICE.replace("          env:\n            - {name: WORK_DIR, value: /work}\n", "").replace(
        ", memory: 2Gi", ""
    )
    merged = text.replace("limits: {", "limits: {<<: &base {memory: 2Gi, cpu: 2}, ")
    assert trainer_of(load_template(merged))["resources"]["limits"] == {"memory": "1Gi", "cpu": 1}
    assert load_template(text.replace("name: trainer", "name: 'trainer'"))


def with_resources(**resources: Any) -> dict[str, Any]:
    return changed(f"{POD}/trainer/resources", resources)


def gpus_of(job: dict[str, Any]) -> str:
    return str(next(e["value"] for e in trainer_of(job)["env"] if e["name"] == "GPUS"))


@pytest.mark.parametrize(
    "resource",
    [
        "nvidia.com/gpu",
        "nvidia.com/mig-1g.5gb",
        "nvidia.com/gpu.shared",
        "amd.com/gpu",
        "gpu.intel.com/i915",
        "habana.ai/gaudi",
        "example.com/card",
    ],
)
@pytest.mark.parametrize("wish", [None, 0, 3])
def test_f55_a_number_of_gpus_is_one_of_the_templates_own_kind(resource: str, wish: int | None) -> None:
    template = with_resources(limits={"memory": "1Gi", "rdma/hca": 1, resource: 2}, requests={resource: "2"})
    job = built(template, a_request(resources={"gpus": wish}))
    expected = {"memory": "1Gi", "rdma/hca": 1}
    if wish != 0:
        expected[resource] = (wish and str(wish)) or 2
    assert trainer_of(job)["resources"]["limits"] == expected
    assert gpus_of(job) == str(2 if wish is None else wish)


@pytest.mark.parametrize(
    ("number", "beside"),
    [
        ("nvidia.com/gpu", {"nvidia.com/gpumem": 3000, "nvidia.com/gpucores": 30}),
        ("volcano.sh/vgpu-number", {"volcano.sh/vgpu-memory": 3000}),
        ("nvidia.com/gpu", {"nvidia.com/gpumem-percentage": 50}),
    ],
)
@pytest.mark.parametrize("wish", [0, 2, None])
def test_f55_how_much_of_a_gpu_is_no_second_kind(number: str, beside: dict[str, int], wish: int | None) -> None:
    template = with_resources(limits={number: 1, **beside})
    job = built(load_template(yaml.safe_dump(template)), a_request(resources={"gpus": wish}))
    expected = {} if wish == 0 else {number: 1 if wish is None else str(wish), **beside}
    assert trainer_of(job)["resources"]["limits"] == expected
    assert gpus_of(job) == str(1 if wish is None else wish)


def test_f55_two_kinds_of_gpu_in_one_template_are_refused() -> None:
    template = with_resources(limits={"nvidia.com/gpu": 1, "nvidia.com/mig-1g.5gb": 1})
    with pytest.raises(TemplateError, match=r"several kinds of GPU: nvidia.com/gpu, nvidia.com/mig-1g.5gb"):
        load_template(yaml.safe_dump(template))


def claiming(*others: str) -> dict[str, Any]:
    template = with_resources(claims=[{"name": "gpu"}, {"name": "second"}])
    pod = template["spec"]["template"]["spec"]
    pod["resourceClaims"] = [{"name": name, "resourceClaimTemplateName": name} for name in ("gpu", "second", "nic")]
    pod["containers"].append({"name": "proxy", "image": "p:1", "resources": {"claims": [{"name": n} for n in others]}})
    return template


@pytest.mark.parametrize(("wish", "promised"), [(None, "2"), (2, "2"), (5, "2"), (0, "0")])
def test_f55_claims_are_a_promise_and_no_second_kind_is_added(wish: int | None, promised: str) -> None:
    template = claiming("nic", "second")
    job = built(template, a_request(resources={"gpus": wish}))
    pod = job["spec"]["template"]["spec"]
    assert gpus_of(job) == promised
    assert not [name for name in trainer_of(job)["resources"].get("limits") or () if "/" in name]
    left = [claim["name"] for claim in pod["resourceClaims"]]
    assert left == (["second", "nic"] if wish == 0 else ["gpu", "second", "nic"])
    assert bool(trainer_of(job)["resources"].get("claims")) == (wish != 0)


def test_f55_a_number_that_claims_cannot_give_is_said_to_the_sender() -> None:
    bounds = bounds_of(SETTINGS, claiming())
    message = '{"task": "train", "model_container_name": "model-1", "resources": {"gpus": %s}}'
    for fine in ("null", "0", "2"):
        assert isinstance(decode(message % fine, bounds), TrainingRequest)
    with pytest.raises(MalformedRequest, match="gives GPUs by claims"):
        decode(message % 4, bounds)


@pytest.mark.parametrize(("folder", "template"), list(templates()))
def test_f58_no_autoscaler_ends_a_training_to_save_its_node(folder: str, template: dict[str, Any]) -> None:
    annotations = template["spec"]["template"]["metadata"]["annotations"]
    assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert annotations["karpenter.sh/do-not-disrupt"] == "true"
    template["spec"]["template"]["spec"]["containers"][0]["image"] = "trainer:1"
    job = build_job(template, a_request(), message_id="m", queued_at=T0, defaults=DEFAULTS)
    assert job["spec"]["template"]["metadata"]["annotations"] == annotations, folder


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("restartPolicy", "Always"),
        ("restartPolicy", "OnFailure"),
        ("restartPolicy", "Never"),
        ("restartPolicyRules", []),
    ],
)
def test_f85_a_trainer_that_the_kubelet_would_restart_is_refused_at_start(field: str, value: Any) -> None:
    with pytest.raises(TemplateError) as caught:
        load_template(yaml.safe_dump(changed(f"{POD}/trainer/{field}", value)))
    assert caught.value.problems == [
        f"spec.template.spec.containers[trainer].{field} must be left out: retries are the Job's, by exit code"
    ]


def test_f85_nor_may_another_container_restart_the_trainer() -> None:
    template = a_template()
    rules = [{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [1]}}]
    sidecar = {"name": "mesh", "image": "mesh:1", "restartPolicy": "Always"}
    template["spec"]["template"]["spec"]["initContainers"] = [sidecar]
    assert load_template(yaml.safe_dump(template)), "a native sidecar"
    template["spec"]["template"]["spec"]["initContainers"] = [{**sidecar, "restartPolicyRules": rules}]
    with pytest.raises(TemplateError, match=r"initContainers\[mesh\].restartPolicyRules must not restart all"):
        load_template(yaml.safe_dump(template))


def test_f85_the_command_says_so_before_anything_is_touched(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from dispatcher.cli.main import main

    (tmp_path / "t.yaml").write_text(yaml.safe_dump(changed(f"{POD}/trainer/restartPolicy", "Always")))
    message = '{"task": "train", "model_container_name": "model-1"}'
    done = CliRunner().invoke(main, ["render", message], env={"JOB_TEMPLATE": str(tmp_path / "t.yaml")})
    assert done.exit_code == 2
    assert "containers[trainer].restartPolicy" in done.output


def test_f45_check_warns_of_a_second_container_that_is_no_native_sidecar(monkeypatch: pytest.MonkeyPatch) -> None:
    template = copy.deepcopy(dict(TEMPLATE))
    pod = template["spec"]["template"]["spec"]
    monkeypatch.setattr(factories, "read_template", lambda settings: template)
    settings = SimpleNamespace(job_template="job.yaml")
    pod["initContainers"] = [{"name": "mesh", "image": "mesh:1", "restartPolicy": "Always"}]
    assert check._try("job template", check._template, settings).result == "ok"
    pod["containers"].append({"name": "logs", "image": "logs:1"})
    warned = check._try("job template", check._template, settings)
    assert warned.result == "warning"
    assert "nothing ends logs when the trainer has ended" in warned.sentence
    assert "initContainers" in warned.sentence
