"""The production overlay as this run has it: with namespaces, images, addresses and names of its own."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from local_stack.azurite import ACCOUNT, ACCOUNT_KEY
from tests.world.manifests.kustomized import Object, rendered
from tests.world.repository import MANIFESTS, read

# On all that is made, with the namespace as its value: what is removed is found by it.
LABEL = "training-dispatcher-test"
DISPATCHER = "training-dispatcher"
# What a variant of the Job template asks for and nobody has; the policy lets it pass.
MISSING = "cluster-test-missing"
PORTAL_PORT = 8080
BLOB_PORT, QUEUE_PORT = 10000, 10001


@dataclass(frozen=True)
class Where:
    """What one run calls its own.

    namespace: of the Jobs; those of the dispatcher and of the contract suite are named after it. dispatcher, trainer:
    images. portal: a portal's address, storage: a connection string, both as pods reach them.
    """

    namespace: str
    dispatcher: str
    trainer: str
    portal: str
    storage: str
    api_key: str
    pull_secret: Object | None = None

    @property
    def system(self) -> str:
        return f"{self.namespace}-system"

    @property
    def contracts(self) -> str:
        return f"{self.namespace}-contracts"


def in_cluster(namespace: str) -> tuple[str, str]:
    """(portal, storage) where both are pods of this run."""
    azurite = f"http://azurite.{namespace}-system.svc"
    storage = connection_string(f"{azurite}:{BLOB_PORT}", f"{azurite}:{QUEUE_PORT}")
    return f"http://portal.{namespace}-system.svc:{PORTAL_PORT}", storage


def connection_string(blobs: str, queues: str) -> str:
    """That of an Azurite at these addresses."""
    account = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY}"
    return f"{account};BlobEndpoint={blobs}/{ACCOUNT};QueueEndpoint={queues}/{ACCOUNT};"


def repository_of(image: str) -> str:
    """An image's name without tag and digest, as the admission policy lists it."""
    return re.sub(r"(?:@.*|:[^/:]+)\Z", "", image)


def namespaces(where: Where) -> list[Object]:
    """All three, before anything else: whoever finds one of them there already stops."""
    ours = [copy.deepcopy(thing) for thing in rendered("production") if thing["kind"] == "Namespace"]
    for thing in ours:
        thing["metadata"]["name"] = where.system if thing["metadata"]["name"].endswith("-system") else where.namespace
    # The suite's pods are plain ones, which Pod Security's level "restricted" would refuse.
    plain = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": where.contracts}}
    return _labelled(where, [*ours, plain])


def objects(where: Where, settings: Mapping[str, str], template: Object, *, kueue: bool = False) -> list[Object]:
    """Production's, without its namespaces, and the Secrets that an operator makes.

    settings: beside the overlay's. template: the Job template. kueue: with the component.
    """
    shared = rendered("production+kueue" if kueue else "production")
    things = [copy.deepcopy(thing) for thing in shared if thing["kind"] != "Namespace"]
    exactly = {"training-system": where.system, "training": where.namespace}
    data = {
        **settings,
        "API_BASE_URL": where.portal,
        "TRAINER_IMAGE": where.trainer,
        "RELAY_URL": f"http://training-relay.{where.system}.svc:8082",
    }
    for thing in things:
        _replace(thing, exactly)
        name, kind = thing["metadata"]["name"], thing["kind"]
        if kind.startswith("ValidatingAdmissionPolicy"):
            # They are the cluster's: those of an installation beside this one stay as they are.
            thing["metadata"]["name"] = f"{name}.{where.namespace}"
            if kind.endswith("Binding"):
                thing["spec"]["policyName"] += f".{where.namespace}"
        elif re.fullmatch(r"training-dispatcher-[a-z0-9]{10}", name):
            thing["data"].update(data)
        elif name.startswith("training-job-template"):
            thing["data"]["job-template.yaml"] = yaml.safe_dump(template, sort_keys=False)
        elif name == "training-policy":
            thing["data"].update(images=repository_of(where.trainer), secrets=MISSING)
            if where.pull_secret:
                thing["data"]["pullSecrets"] = where.pull_secret["metadata"]["name"]
        elif kind == "ServiceAccount" and where.pull_secret:
            thing["imagePullSecrets"] = [{"name": where.pull_secret["metadata"]["name"]}]
        elif kind == "Deployment":
            pod = thing["spec"]["template"]
            pod["spec"]["containers"][0]["image"] = where.dispatcher
            # The generated names stay as they are: this is what rolls it out when settings or template change.
            pod["metadata"]["annotations"] = {LABEL: _hash([data, template])}
    made = [
        _secret(where, "portal", {"API_KEY": where.api_key}),
        _secret(where, "storage", {"AZURE_STORAGE_CONNECTION_STRING": where.storage}),
    ]
    return _labelled(where, [*things, *made, *_ways(where)])


def surroundings(where: Where, azurite_image: str = "") -> list[Object]:
    """Azurite as the overlay `local` has it, and the portal, a program in the dispatcher's image."""
    local = MANIFESTS / "overlays" / "local"
    azurite, service = (yaml.safe_load((local / name).read_text()) for name in ("azurite.yaml", "azurite-service.yaml"))
    portal, portal_service = (json.loads(json.dumps(t).replace("azurite", "portal")) for t in (azurite, service))
    container = azurite["spec"]["template"]["spec"]["containers"][0]
    container["image"] = azurite_image or container["image"]
    # Its name has dots here, and the account is not the first part of it.
    container["args"].append("--disableProductStyleUrl")
    pod = portal["spec"]["template"]["spec"]
    pod["containers"][0] |= {
        "image": where.dispatcher,
        "command": ["python3", "/portal/portal.py"],
        "args": [str(PORTAL_PORT)],
        "env": [{"name": "API_KEY", "value": where.api_key}],
        "ports": [{"name": "http", "containerPort": PORTAL_PORT}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 2},
        "volumeMounts": [{"name": "program", "mountPath": "/portal"}],
    }
    pod["volumes"] = [{"name": "program", "configMap": {"name": "portal"}}]
    portal_service["spec"]["ports"] = [{"name": "http", "port": PORTAL_PORT, "targetPort": "http"}]
    source = {"portal.py": read("tests/cluster/portal.py")}
    program: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "portal"}, "data": source}
    for thing in (azurite, service, portal, portal_service, program):
        thing["metadata"]["namespace"] = where.system
    for deployment in (azurite, portal) if where.pull_secret else ():
        secrets = [{"name": (where.pull_secret or {})["metadata"]["name"]}]
        deployment["spec"]["template"]["spec"]["imagePullSecrets"] = secrets
    return _labelled(where, [program, azurite, service, portal, portal_service])


def pull_secrets(where: Where) -> list[Object]:
    """The registry's login, once for each namespace; none where none is needed."""
    if where.pull_secret is None:
        return []
    name, kept = where.pull_secret["metadata"]["name"], {k: where.pull_secret[k] for k in ("type", "data")}
    return _labelled(
        where,
        [
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, **kept}
            for namespace in (where.system, where.namespace, where.contracts)
        ],
    )


def kueue_objects(where: Where, version: str, template: Object) -> list[Object]:
    """A ClusterQueue with room for one training at a time, of its own flavour."""
    requests = template["spec"]["template"]["spec"]["containers"][0]["resources"]
    asked = {**requests.get("limits", {}), **requests.get("requests", {})}
    quota = [{"name": name, "nominalQuota": str(amount)} for name, amount in asked.items()]
    head = {"apiVersion": f"kueue.x-k8s.io/{version}", "metadata": {"name": where.namespace}}
    flavours = [{"name": where.namespace, "resources": quota}]
    spec = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": where.namespace}},
        "resourceGroups": [{"coveredResources": list(asked), "flavors": flavours}],
    }
    return _labelled(where, [{**head, "kind": "ResourceFlavor"}, {**head, "kind": "ClusterQueue", "spec": spec}])


def job_template(gpus: int) -> Object:
    """The Job template: production's with GPUs, the overlay `local`'s, which is small, without."""
    name = "base" if gpus else "overlays/local"
    template: Object = yaml.safe_load(read(f"manifests/{name}/job-template.yaml"))
    return template


def _ways(where: Where) -> list[Object]:
    """What is closed in production and needed here: storage and portal at their ports, whatever the address."""
    ports = {int(port) for port in re.findall(r"https?://[^/;]+:(\d+)", f"{where.portal};{where.storage}")}
    egress = [{"ports": [{"port": port, "protocol": "TCP"} for port in sorted(ports)]}]
    policies = []
    for namespace, labels in (
        (where.system, {"app.kubernetes.io/name": DISPATCHER}),
        (where.namespace, {"app.kubernetes.io/managed-by": DISPATCHER}),
    ):
        spec = {"podSelector": {"matchLabels": labels}, "policyTypes": ["Egress"], "egress": egress}
        metadata = {"name": "cluster-test", "namespace": namespace}
        policies.append(
            {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}
        )
    return policies if ports else []


def _secret(where: Where, name: str, values: Mapping[str, str]) -> Object:
    metadata = {"name": name, "namespace": where.system}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": dict(values)}


def _labelled(where: Where, things: Iterable[Object]) -> list[Object]:
    things = json.loads(json.dumps(list(things)))
    for thing in things:
        thing["metadata"].setdefault("labels", {})[LABEL] = where.namespace
    return list(things)


def _replace(node: Any, exactly: Mapping[str, str]) -> None:
    """Every text in a tree that is one of these as a whole."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(value, str):
            node[key] = exactly.get(value, value)
        elif isinstance(value, dict | list):
            _replace(value, exactly)


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]
