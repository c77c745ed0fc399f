"""The resources that the stand-in cluster serves, and how the API's paths name them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Resource:
    """One kind of object: its group ("" for the core group), version, plural name and kind."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    status: bool = False
    generation: bool = False
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    create_only: bool = False

    @property
    def api_version(self) -> str:
        """As objects carry it: "v1" or "batch/v1"."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """As messages name it: "pods" or "jobs.batch"."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


JOBS = Resource("batch", "v1", "jobs", "Job", status=True, generation=True, categories=("all",))
PODS = Resource(
    "",
    "v1",
    "pods",
    "Pod",
    short=("po",),
    status=True,
    generation=True,
    categories=("all",),
    subresources=("log", "eviction"),
)
EVENTS = Resource("", "v1", "events", "Event", short=("ev",))
SECRETS = Resource("", "v1", "secrets", "Secret")
# Kept and collected with its Job; the pods here reach each other whatever it says.
NETWORKPOLICIES = Resource(
    "networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", short=("netpol",), generation=True
)
CONFIGMAPS = Resource("", "v1", "configmaps", "ConfigMap", short=("cm",))
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False, short=("ns",), status=True)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False, short=("no",), status=True)
SERVICEACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", short=("sa",))
RESOURCEQUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota", short=("quota",), status=True)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
PRIORITYCLASSES = Resource(
    "scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False, short=("pc",)
)
ADMISSION_POLICIES = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicies",
    "ValidatingAdmissionPolicy",
    namespaced=False,
    generation=True,
)
ADMISSION_BINDINGS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicybindings",
    "ValidatingAdmissionPolicyBinding",
    namespaced=False,
)
ACCESS_REVIEWS = Resource(
    "authorization.k8s.io",
    "v1",
    "selfsubjectaccessreviews",
    "SelfSubjectAccessReview",
    namespaced=False,
    create_only=True,
)

# Of Kueue: served so that what reads them can be tried; no Kueue runs here. Tests write what it would say.
LOCALQUEUES = Resource("kueue.x-k8s.io", "v1beta2", "localqueues", "LocalQueue", short=("queue",), status=True)
WORKLOADS = Resource("kueue.x-k8s.io", "v1beta2", "workloads", "Workload", short=("wl",), status=True)

RESOURCES: dict[str, Resource] = {
    resource.plural: resource
    for resource in (
        JOBS,
        PODS,
        EVENTS,
        SECRETS,
        NETWORKPOLICIES,
        CONFIGMAPS,
        NAMESPACES,
        NODES,
        SERVICEACCOUNTS,
        RESOURCEQUOTAS,
        LEASES,
        PRIORITYCLASSES,
        ADMISSION_POLICIES,
        ADMISSION_BINDINGS,
        ACCESS_REVIEWS,
        LOCALQUEUES,
        WORKLOADS,
    )
}
# Group → the one version of it that is served; without the core group.
GROUPS: dict[str, str] = {r.group: r.version for r in RESOURCES.values() if r.group}

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def resource_list(group: str) -> dict[str, Any]:
    """The APIResourceList of one group ("" for the core group), for `kubectl`'s discovery."""
    entries: list[dict[str, Any]] = []
    for resource in RESOURCES.values():
        if resource.group != group:
            continue
        entry: dict[str, Any] = {
            "name": resource.plural,
            "singularName": resource.kind.lower(),
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": ["create"] if resource.create_only else _VERBS,
        }
        if resource.short:
            entry["shortNames"] = list(resource.short)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        entries.append(entry)
        names = (("status",) if resource.status else ()) + resource.subresources
        entries.extend(_subresource(resource, name) for name in names)
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{GROUPS[group]}" if group else "v1",
        "resources": entries,
    }


def _subresource(resource: Resource, name: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": f"{resource.plural}/{name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": "Eviction" if name == "eviction" else resource.kind,
        "verbs": {"status": ["get", "patch", "update"], "log": ["get"], "eviction": ["create"]}[name],
    }
    if name == "eviction":
        entry |= {"group": "policy", "version": "v1"}
    return entry
