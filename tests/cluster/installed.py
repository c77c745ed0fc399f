"""The ground of a real cluster: the production overlay in namespaces of this run's own, with all that it needs."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from dispatcher.cluster import names
from local_stack.portal.client import StandInPortal
from local_stack.processes import Service, wait_until
from tests.cluster import overlay
from tests.cluster.kubectl import CommandFailed, Kubectl
from tests.cluster.overlay import DISPATCHER, LABEL, Where
from tests.world.kube import Kube
from tests.world.manifests.kustomized import Object

# What is there in every namespace by itself, and what goes with the namespaces: the rest is the cluster's.
_OF_THE_CLUSTER = "validatingadmissionpolicybindings,validatingadmissionpolicies"
_OF_KUEUE = "clusterqueues.kueue.x-k8s.io,resourceflavors.kueue.x-k8s.io"
_ROLLOUT = 600.0  # seconds: images are pulled the first time


class Occupied(Exception):
    """A namespace of these names is there already."""


class Installed:
    """A Ground. portal, storage, after `start`: how this machine reaches what the pods reach otherwise."""

    burst = 20
    grace = 20  # seconds, for an image, a Secret or a node that does not come

    def __init__(
        self,
        kubeconfig: Path,
        namespace: str,
        dispatcher: str,
        trainer: str,
        logs: Path,
        *,
        gpus: int = 0,
        drain: bool = False,
        portal: str = "",
        portal_key: str = "",
        storage: str = "",
        azurite_image: str = "",
        pull_secret: str = "",
    ) -> None:
        """portal, storage: where pods and this machine find them; "": as pods. pull_secret: NAMESPACE/NAME to copy.

        Makes nothing. Raises Occupied, CommandFailed.
        """
        self.kubectl = Kubectl(kubeconfig, logs)
        pods = overlay.in_cluster(namespace)
        key = portal_key if portal else secrets.token_hex(16)
        login = self._pull_secret(pull_secret)
        self.where = Where(namespace, dispatcher, trainer, portal or pods[0], storage or pods[1], key, login)
        self.queue = f"{namespace}-requests"
        ours = (self.where.namespace, self.where.system, self.where.contracts)
        if there := [name for name in ours if self.kubectl.get("namespace", name)]:
            raise Occupied(
                f"There is a namespace {there[0]} already: name another one, which is made, and removed with all that "
                "is in it. ARGS=--clean removes what a run of this command has left."
            )
        self._given = {"portal": bool(portal), "storage": bool(storage)}
        self._azurite_image = azurite_image
        self._logs = logs
        self._ways: list[Service] = []
        self.storage = storage
        self.storage_stays = bool(storage)
        self.template = overlay.job_template(gpus)
        self.trainer = trainer
        self.kube = Kube(kubeconfig, namespace, dispatcher)
        self._kueue = self._version_of_kueue()
        cannot = {
            "drain": "" if drain else "it cordons a node for everybody there: DRAIN=1 allows it",
            "kueue": "" if self._kueue else "no Kueue in this cluster",
        }
        self.cannot: Mapping[str, str] = {need: why for need, why in cannot.items() if why}

    def start(self) -> None:
        """Namespaces, portal and storage. Raises CommandFailed."""
        self.kubectl.apply(overlay.namespaces(self.where))
        self.kubectl.apply(overlay.pull_secrets(self.where))
        things = overlay.surroundings(self.where, self._azurite_image)
        kept = [t for t in things if not self._given["storage" if t["metadata"]["name"] == "azurite" else "portal"]]
        self.kubectl.apply(kept)
        for name in ("portal", "azurite"):
            if f"deployment.apps/{name}" in self.kubectl.names("deployments", "-n", self.where.system):
                self._rolled_out(name)
        self._open_ways()

    def _open_ways(self) -> None:
        url = self.where.portal
        if not self._given["portal"]:
            way, (port,) = self.kubectl.forward(self.where.system, "portal", overlay.PORTAL_PORT)
            self._ways.append(way)
            url = f"http://127.0.0.1:{port}"
        # Its end is not this object's.
        self.portal = StandInPortal(url, self.where.api_key, service=None)
        if not self._given["storage"]:
            ports = (overlay.BLOB_PORT, overlay.QUEUE_PORT)
            way, (blobs, queues) = self.kubectl.forward(self.where.system, "azurite", *ports)
            self._ways.append(way)
            self.storage = overlay.connection_string(f"http://127.0.0.1:{blobs}", f"http://127.0.0.1:{queues}")

    def configure(self, settings: Mapping[str, str], template: Object, *, kueue: bool = False) -> None:
        """The dispatchers with these settings and this Job template; returns when both replicas are ready."""
        if kueue:
            self.kubectl.apply(overlay.kueue_objects(self.where, self._kueue, template))
        self.kubectl.apply(overlay.objects(self.where, settings, template, kueue=kueue))
        self._rolled_out(DISPATCHER)

    def kill_dispatchers(self) -> None:
        """Both at once, without a word; the Deployment starts others."""
        words = ("delete", "pods", "-l", f"app.kubernetes.io/name={DISPATCHER}", "--grace-period=0", "--force")
        self.kubectl("-n", self.where.system, *words)

    def command(self, *words: str, seconds: float = 300.0) -> tuple[int, str]:
        """(exit code, what it says) of a command of the dispatcher, in its pod."""
        exec_in = ("-n", self.where.system, "exec", f"deploy/{DISPATCHER}", "--", "dispatcher")
        code, out, err = self.kubectl.tried(*exec_in, *words, timeout=seconds)
        return code, out + err

    def drain(self, pod: str) -> None:
        """Drain the pod's node of this pod alone, and give the node back."""
        found = self.kubectl.get("-n", self.where.namespace, "pod", pod)
        node, job = found["spec"]["nodeName"], found["metadata"]["labels"][names.JOB_NAME]
        was_cordoned = self.kubectl.get("node", node)["spec"].get("unschedulable", False)
        try:
            words = (f"--pod-selector={names.JOB_NAME}={job}", "--ignore-daemonsets", "--delete-emptydir-data")
            self.kubectl("drain", node, *words, "--timeout=90s")
        finally:
            if not was_cordoned:
                self.kubectl("uncordon", node)

    def contract_suite(self) -> list[str]:
        """The contract suite's options: a namespace without Pod Security's level, and an image that has a shell."""
        if self.where.pull_secret:
            # Its pods have no service account of their own.
            patch = f'{{"imagePullSecrets": [{{"name": "{self.where.pull_secret["metadata"]["name"]}"}}]}}'
            namespace = self.where.contracts
            wait_until(lambda: self.kubectl.get("-n", namespace, "serviceaccount", "default"), 60)
            self.kubectl("-n", namespace, "patch", "serviceaccount", "default", "-p", patch)
        where = ["--kubeconfig", str(self.kube.kubeconfig), "--namespace", self.where.contracts]
        return [*where, "--image", self.where.dispatcher]

    def keep_logs(self) -> None:
        """Every replica's lines, and what the cluster says of its pods, to where the other logs are."""
        selector = ("-l", f"app.kubernetes.io/name={DISPATCHER}")
        logs = self.kubectl.tried("-n", self.where.system, "logs", *selector, "--prefix", "--tail=-1", timeout=30)
        (self._logs / "dispatchers.log").write_text("".join(logs[1:]))
        for namespace in (self.where.system, self.where.namespace):
            found = self.kubectl.tried("-n", namespace, "get", "events,pods,jobs", "-o", "wide", timeout=30)
            (self._logs / f"{namespace}.txt").write_text("".join(found[1:]))

    def stop(self) -> list[str]:
        """Remove all that carries the label, and nothing else. Returns what is left: "kind/name"."""
        for way in self._ways:
            way.stop()
        self._ways.clear()
        return clean(self.kubectl, self.where.namespace)

    def _rolled_out(self, deployment: str) -> None:
        words = ("rollout", "status", f"deployment/{deployment}", f"--timeout={_ROLLOUT:g}s")
        try:
            self.kubectl("-n", self.where.system, *words, timeout=_ROLLOUT + 30)
        except CommandFailed as why:
            pods = self.kubectl.tried("-n", self.where.system, "get", "pods", "-o", "wide")[1]
            selector = ("-l", f"app.kubernetes.io/name={deployment}")
            logs = self.kubectl.tried("-n", self.where.system, "logs", *selector, "--prefix", "--tail=20")
            raise CommandFailed(f"{why}\n{pods}{''.join(logs[1:])}") from None

    def _version_of_kueue(self) -> str:
        """Of its API, "" where it is not installed."""
        served = "jsonpath={.spec.versions[?(@.served)].name}"
        found = self.kubectl.tried("get", "crd", "localqueues.kueue.x-k8s.io", "-o", served)
        # The component's.
        return "v1beta2" if "v1beta2" in found[1].split() else ""

    def _pull_secret(self, named: str) -> Object | None:
        if not named:
            return None
        namespace, _, name = named.partition("/")
        found: Object | None = self.kubectl.get("-n", namespace, "secret", name)
        if found is None:
            raise CommandFailed(f"There is no Secret {name} in namespace {namespace} (PULL_SECRET=NAMESPACE/NAME)")
        return found


def clean(kubectl: Kubectl, namespace: str) -> list[str]:
    """Remove all that a run in this namespace made, by its label, and wait. Returns what is left: "kind/name"."""
    ours = ("-l", f"{LABEL}={namespace}")
    print(f"Removing what carries the label {LABEL}={namespace} ...", file=sys.stderr, flush=True)
    found = kubectl.names("namespaces", *ours)
    if f"namespace/{namespace}-system" in found:
        # Before its Jobs' finalizers go: it would put them back.
        kubectl.tried("-n", f"{namespace}-system", "delete", "deployment", DISPATCHER, "--ignore-not-found")
    kubectl.tried("delete", _OF_THE_CLUSTER, *ours, "--ignore-not-found")
    for one in (namespace, f"{namespace}-contracts"):
        if f"namespace/{one}" in found:
            _release(kubectl, one)
    if found:
        kubectl.tried("delete", *found, "--ignore-not-found", "--timeout=180s", timeout=200)
    kubectl.tried("delete", _OF_KUEUE, *ours, "--ignore-not-found", "--timeout=60s", timeout=90)
    kinds = ("namespaces", _OF_THE_CLUSTER, _OF_KUEUE)
    return [left for kind in kinds for left in kubectl.names(kind, *ours)]


def _release(kubectl: Kubectl, namespace: str) -> None:
    """Nobody reports these any more."""
    kubectl.tried("-n", namespace, "delete", "jobs", "--all", "--wait=false")
    for job in kubectl.names("jobs", "-n", namespace):
        kubectl.tried("-n", namespace, "patch", job, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
