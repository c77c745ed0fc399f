"""The operator's Job template + a request → the Job to create. Pure.

The template is a plain `batch/v1` Job. What the orchestrator's promises rest on (name, suspend, finalizer, failure
policy, deadline, the trainer's environment) is ours; everything else is the operator's (`job_template` refuses what
would break a promise).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dispatcher.cluster import names
from dispatcher.decisions.codes import LAST_PERMANENT
from dispatcher.launch import gpus
from dispatcher.launch.request import TrainingRequest
from portal_client.statuses import ProcessingStatus
from training_common.times import rfc3339, run_stamp

# Exit codes up to 127 are permanent by the trainer's contract, those from 128 are counted by backoffLimit.
_PERMANENT_EXIT_CODES = list(range(1, LAST_PERMANENT + 1))
_NODE_FLAP_SECONDS = 1800
# A Secret's files belong to root: a template without an fsGroup has a trainer that is neither root nor of root's group.
# Only the trainer's container has them.
_READABLE = 0o444
# The label by which AKS gives a pod a token of its service account's identity.
_WORKLOAD_IDENTITY = "azure.workload.identity/use"
# What a template gives every training, which a training with credentials of its own does without; and the portal's
# address, in whose place the relay's comes.
SHARED_CREDENTIALS = frozenset(
    {"API_KEY", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_URL", "API_BASE_URL"}
)


@dataclass(frozen=True)
class JobDefaults:
    """What every Job gets from the dispatcher's settings. env: handed to the trainer unless the template sets it.

    scoped: the trainer has the credentials of its own Secret, and none of the template's.
    """

    env: Mapping[str, str]
    time_limit: int
    image: str = ""
    gpu_resource: str = names.GPU_RESOURCE
    scoped: bool = False


def run_id(message_id: str, queued_at: float) -> str:
    """The run's folder in the model container: sortable by time, the same for every delivery of one message."""
    return f"{run_stamp(queued_at)}-{hashlib.sha256(message_id.encode()).hexdigest()[:8]}"


def build_job(
    template: Mapping[str, Any],
    request: TrainingRequest,
    *,
    message_id: str,
    queued_at: float,
    defaults: JobDefaults,
    shown: ProcessingStatus | None = None,
    kueue: bool = False,
    queue: str = "",
) -> dict[str, Any]:
    """The suspended Job for one request. The template is not changed.

    queued_at: seconds since the epoch; shown: what the portal showed for the model, None where it was not asked; kueue:
    whether Kueue resumes it, and has to wait until the portal was told; queue: the one that the request comes from.
    """
    job = copy.deepcopy(dict(template))
    run = run_id(message_id, queued_at)
    labels = {names.MANAGED_BY: names.MANAGER, names.MODEL_ID: request.model_id}
    source = {names.QUEUE: queue} if queue else {}
    held = {names.KUEUE_QUEUE_LABEL: names.KUEUE_HOLD} if kueue else {}

    metadata = _child(job, "metadata")
    metadata["name"] = request.model_container
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels, **source, **held}
    metadata["annotations"] = {
        **(metadata.get("annotations") or {}),
        names.MESSAGE_ID: message_id,
        names.REQUEST: request.to_json(),
        names.RUN_ID: run,
        names.QUEUED_AT: rfc3339(queued_at),
        **({} if shown is None else {names.STATUS_BEFORE: shown.title}),
    }
    metadata["finalizers"] = [*(metadata.get("finalizers") or ()), names.FINALIZER]

    spec = job["spec"]
    spec["suspend"] = True
    spec["parallelism"] = spec["completions"] = request.nodes or 1
    spec["activeDeadlineSeconds"] = min(
        request.time_limit or spec.get("activeDeadlineSeconds") or defaults.time_limit, defaults.time_limit
    )
    spec["podReplacementPolicy"] = "Failed"
    permanent = {"containerName": names.TRAINER_CONTAINER, "operator": "In", "values": _PERMANENT_EXIT_CODES}
    spec["podFailurePolicy"] = {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": permanent},
        ]
    }

    pod = spec["template"]
    pod_metadata = _child(pod, "metadata")
    pod_metadata["labels"] = {**(pod_metadata.get("labels") or {}), **labels}
    if defaults.scoped:
        # An identity of the pod's would be good for more than its own containers.
        pod_metadata["labels"].pop(_WORKLOAD_IDENTITY, None)
    if request.priority is not None:
        pod["spec"]["priorityClassName"] = request.priority
    _tolerate_flapping_nodes(pod["spec"])
    _complete_container(pod["spec"], request, run, defaults, shown)
    if (nodes := spec["completions"]) > 1:
        spec["completionMode"] = "Indexed"
        pod_metadata["labels"][names.TEAM] = "true"
        _join(pod["spec"], request.model_container, nodes)
    return job


def _join(pod_spec: dict[str, Any], job: str, nodes: int) -> None:
    """What a node needs to find the others: names of pods, and torchrun's variables for a launch on several nodes.

    Kubernetes gives the pod with index k of an Indexed Job the host name JOB-k, in the domain of the headless Service
    that `subdomain` names (an operator's own where the template has one).
    """
    domain = pod_spec["subdomain"] = pod_spec.get("subdomain") or names.TEAM_SERVICE
    said = {"NNODES": str(nodes), "MASTER_ADDR": f"{job}-0.{domain}", "MASTER_PORT": str(names.TEAM_MASTER_PORT)}
    read = {"NODE_RANK": f"metadata.annotations['{names.INDEX}']", "POD_IP": "status.podIP"}
    gpus.trainer_of_pod(pod_spec)["env"] += [
        *({"name": name, "value": value} for name, value in said.items()),
        *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in read.items()),
    ]


def shared_credentials(template: Mapping[str, Any]) -> list[str]:
    """The template's variables that a training with scoped credentials does without. template: a loaded one."""
    return [e["name"] for e in gpus.trainer_of(template).get("env") or [] if e["name"] in SHARED_CREDENTIALS]


def _tolerate_flapping_nodes(pod_spec: dict[str, Any]) -> None:
    """The API server's default is five minutes: less than a training that is begun anew costs (F23)."""
    theirs = pod_spec.get("tolerations") or []
    tolerated = {entry.get("key") for entry in theirs if entry.get("effect") in (None, "", "NoExecute")}
    ours = [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _NODE_FLAP_SECONDS}
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
        # An entry without a key tolerates every one.
        if key not in tolerated and not tolerated & {None, ""}
    ]
    if ours:
        pod_spec["tolerations"] = [*theirs, *ours]


def _complete_container(
    pod_spec: dict[str, Any],
    request: TrainingRequest,
    run: str,
    defaults: JobDefaults,
    shown: ProcessingStatus | None,
) -> None:
    container = gpus.trainer_of_pod(pod_spec)
    container["image"] = container.get("image") or defaults.image
    if request.gpus is not None:
        _set_gpus(pod_spec, container, request.gpus, defaults.gpu_resource)
    container["terminationMessagePath"] = "/dev/termination-log"
    container["terminationMessagePolicy"] = "FallbackToLogsOnError"
    theirs = container.get("env") or []
    if defaults.scoped:
        theirs = [entry for entry in theirs if entry["name"] not in SHARED_CREDENTIALS]
        _mount_credentials(pod_spec, container, request.model_container)
    taken = {entry["name"] for entry in theirs}
    ours = {
        "MODEL_CONTAINER": request.model_container,
        "RUN_ID": run,
        "LAUNCHED_BY": "dispatcher",
        "TRAINER_IMAGE": container["image"],
        "TRAINING_REQUEST": request.to_json(),
        "GRACE_SECONDS": str(pod_spec.get("terminationGracePeriodSeconds", 30)),
        "GPUS": str(gpus.promised(container, defaults.gpu_resource)),
        **{name: value for name, value in defaults.env.items() if name not in taken},
    }
    if defaults.scoped:
        ours["CREDENTIALS_DIR"] = names.CREDENTIALS_DIR
        if container.get("envFrom"):
            # Empty is as good as absent to the trainer, and a variable of its own is before one of a whole Secret.
            ours |= dict.fromkeys(sorted(SHARED_CREDENTIALS - ours.keys()), "")
    if shown is not None:
        ours["STATUS_BEFORE"] = shown.title
    if request.dataset_container is not None:
        ours["DATASET_CONTAINER"] = request.dataset_container
    container["env"] = [
        *theirs,
        # In a pod's env "$(NAME)" is another variable's value, such as the portal's key, and "$$" is a dollar sign. So
        # each "$" is doubled: "$(API_KEY)" in a message must not become the key.
        *({"name": name, "value": value.replace("$", "$$")} for name, value in ours.items()),
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]


def _mount_credentials(pod_spec: dict[str, Any], container: dict[str, Any], secret: str) -> None:
    """The Job's own Secret as files, in the trainer alone. A pod that is there before it waits for it."""
    volume = {"secretName": secret, "defaultMode": _READABLE, "optional": False}
    mount = {"name": names.CREDENTIALS_VOLUME, "mountPath": names.CREDENTIALS_DIR, "readOnly": True}
    pod_spec["volumes"] = [*(pod_spec.get("volumes") or ()), {"name": names.CREDENTIALS_VOLUME, "secret": volume}]
    container["volumeMounts"] = [*(container.get("volumeMounts") or ()), mount]


def _set_gpus(pod_spec: dict[str, Any], container: dict[str, Any], number: int, configured: str) -> None:
    """The message's number in place of the template's, of the template's own kind. Claims stay, or all go with 0."""
    kinds = gpus.kinds(container, configured)
    if gpus.claims(container) and not kinds:
        if number == 0:
            dropped = {claim.get("name") for claim in container["resources"].pop("claims")}
            everybody = [*pod_spec["containers"], *(pod_spec.get("initContainers") or ())]
            others = [other for other in everybody if other is not container]
            kept = {claim.get("name") for c in others for claim in (c.get("resources") or {}).get("claims") or ()}
            pod_claims = pod_spec.get("resourceClaims") or ()
            pod_spec["resourceClaims"] = [c for c in pod_claims if c.get("name") not in dropped - kept]
        return
    dropped = {*kinds, configured, *(() if number else gpus.shares(container, configured))}
    resources = _child(container, "resources")
    for kind in ("requests", "limits"):
        # A copy: by YAML's aliases the two may be one object.
        resources[kind] = {k: v for k, v in (resources.get(kind) or {}).items() if k not in dropped}
    if number:
        resources["limits"][next(iter(kinds), configured)] = str(number)


def _child(parent: dict[str, Any], key: str) -> dict[str, Any]:
    """The mapping under `key`, made where the template leaves it out or empty."""
    if parent.get(key) is None:
        parent[key] = {}
    child: dict[str, Any] = parent[key]
    return child
