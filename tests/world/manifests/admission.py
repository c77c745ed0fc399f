"""Production's admission policies, and trainings as the dispatcher and Kubernetes make them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import replace

from dispatcher.config.settings import Settings
from dispatcher.factories import bounds_of, defaults_of
from dispatcher.launch import teams
from dispatcher.launch.job_spec import build_job
from dispatcher.launch.job_template import load_template
from dispatcher.launch.request import TrainingRequest, decode
from local_stack.cluster.client import StandInCluster
from local_stack.cluster.registry.defaults import default_job, default_pod
from local_stack.cluster.registry.policies import Write, denial
from local_stack.cluster.registry.resources import JOBS, NETWORKPOLICIES, PODS, SECRETS
from tests.world import json_objects as objects
from tests.world.manifests.kustomized import Object, config_map, of_kind, settings_of, template_of
from tests.world.repository import JOB_TEMPLATE

NAMESPACE = "training"
MODEL = "model-123"
MESSAGE = {"task": "train", "model_container_name": MODEL, "dataset_container_name": "dataset-xyz"}


def job_of(variant: str, nodes: int = 1) -> Object:
    """The Job of a variant's template, with credentials of its own, as the API server completes it."""
    configured = {**settings_of(variant), "JOB_TEMPLATE": str(JOB_TEMPLATE)}
    if "AZURE_STORAGE_QUEUE_URL" not in configured:
        configured["AZURE_STORAGE_CONNECTION_STRING"] = "AccountName=a;AccountKey=a2V5"
    settings = Settings.read(configured)
    message = {**MESSAGE, "resources": {"nodes": nodes}}
    request = decode(json.dumps(message), replace(bounds_of(settings), max_nodes=nodes))
    assert isinstance(request, TrainingRequest)
    job = build_job(
        load_template(template_of(variant), settings.trainer_image),
        request,
        message_id="m",
        queued_at=1.8e9,
        defaults=defaults_of(settings),
    )
    job["metadata"].update(namespace=NAMESPACE, uid="u")
    default_job(job)
    return job


def pod_of(job: Object) -> Object:
    """The pod that the Job controller creates, with what admission adds to it."""
    template = copy.deepcopy(job["spec"]["template"])
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "uid": "u", "controller": True}
    metadata = {
        **template["metadata"],
        "name": f"{job['metadata']['name']}-x7k2p",
        "namespace": NAMESPACE,
        "ownerReferences": [{**owner, "blockOwnerDeletion": True}],
        "finalizers": ["batch.kubernetes.io/job-tracking"],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    default_pod(pod, 0)
    return pod


def secret_of(name: str = MODEL) -> Object:
    """A training's own Secret, as the dispatcher makes it."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": "u", "controller": False}
    labels = {"app.kubernetes.io/managed-by": "training-dispatcher", "training-dispatcher/model-id": name[6:]}
    metadata = {"name": name, "namespace": NAMESPACE, "labels": labels, "ownerReferences": [owner]}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": {"API_KEY": "dg=="}}


def network_policy_of(name: str = MODEL, uid: str = "u") -> Object:
    """That of a training on several nodes, as the dispatcher makes it."""
    policy = teams.network_policy_of(objects.job({"metadata": {"name": name, "uid": uid}}))
    policy["metadata"]["namespace"] = NAMESPACE
    return policy


def why_denied(
    obj: Object,
    old: Object | None = None,
    *,
    may: Callable[[str], bool] = lambda verb: verb not in ("get", "delete"),
    subresource: str = "",
    parameters: Mapping[str, str] | None = None,
    variant: str = "production",
) -> str:
    """The sentence of the policies of a variant about a write in `training`, "" where they let it pass.

    may: what who writes may do to the object; the dispatcher may get no Secret and delete no NetworkPolicy. parameters:
    beside the overlay's own.
    """
    resource = {"Job": JOBS, "Pod": PODS, "Secret": SECRETS, "NetworkPolicy": NETWORKPOLICIES}[obj["kind"]]
    params = copy.deepcopy(config_map(variant, "training-policy"))
    params["data"].update(parameters or {})
    write = Write(resource, obj, old, subresource, may, {"kubernetes.io/metadata.name": NAMESPACE})
    bindings = of_kind(variant, "ValidatingAdmissionPolicyBinding")
    for name, policy in of_kind(variant, "ValidatingAdmissionPolicy").items():
        if said := denial(policy, bindings[name], params, write):
            return said
    return ""


def install(cluster: StandInCluster, namespace: str = NAMESPACE, **parameters: str) -> None:
    """Have production's policies hold in a namespace of a stand-in cluster, where the dispatcher may read no Secret and
    remove no NetworkPolicy.

    parameters: in place of the overlay's.
    """
    cluster.create_service_account("model-training", namespace)
    params = copy.deepcopy(config_map("production", "training-policy"))
    params["metadata"].update(name=namespace, namespace=namespace)
    params["data"].update(parameters)
    cluster.api("POST", f"/api/v1/namespaces/{namespace}/configmaps", params)
    for kind, plural in (("ValidatingAdmissionPolicy", "ies"), ("ValidatingAdmissionPolicyBinding", "ybindings")):
        for thing in map(copy.deepcopy, of_kind("production", kind).values()):
            thing["metadata"]["name"] = f"{thing['metadata']['name']}.{namespace}"
            if kind.endswith("Binding"):
                thing["spec"]["policyName"] += f".{namespace}"
                thing["spec"]["matchResources"]["namespaceSelector"]["matchLabels"] = {
                    "kubernetes.io/metadata.name": namespace
                }
                if "paramRef" in thing["spec"]:
                    thing["spec"]["paramRef"].update(name=namespace, namespace=namespace)
            cluster.api("POST", f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic{plural}", thing)
    cluster.deny(
        {"verb": "get", "resource": "secrets", "namespace": namespace},
        {"verb": "delete", "resource": "networkpolicies", "namespace": namespace},
    )
