"""Who holds a training now, until when that is tolerated, and the one thing to do next. Pure.

For people at three in the morning: what `dispatcher explain` and a model's own page say beside the sentence.
"""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.decisions.verdicts import Holder
from dispatcher.decisions.views.phases import Phase
from portal_client.messages import AGAIN

_BY_CODE = {
    "Unschedulable": "Free a GPU or add a node: `kubectl get nodes` shows what there is. It starts by itself then",
    "ImagePull": "Make the image's name and the registry's credentials right (TRAINER_IMAGE, imagePullSecrets of the "
    "service account). A secret is taken by itself; for another image cancel it and send it again",
    "ContainerConfig": "Make what is named, in the namespace of trainings: the kubelet tries again by itself",
    "PodCreateDenied": "Have who is named (quota, policy, Pod Security) admit the pod: it is made by itself then",
    "WebhookUnavailable": "Have who runs the cluster mend the webhook: its Service and pods",
    "NodeLost": "Have who runs the cluster look at the node, and remove it from the cluster if it is gone for good",
    "TeamIncomplete": "Free the nodes that are lacking, or ask for fewer: the others hold their GPUs meanwhile",
}
_BY_HOLDER = {
    Holder.KUEUE: "Wait for its turn: `kubectl get workloads.kueue.x-k8s.io` shows the queue",
    Holder.PERSON: "Resume the Job (`suspend: false`), or cancel it",
    Holder.NETWORK: "Have who runs the cluster look at the node",
    Holder.REGISTRY: "Wait: the registry asks for fewer pulls for a while",
}
_BY_PHASE = {
    Phase.LAUNCHING: "Wait: a dispatcher goes on with it by itself. `dispatcher check` tells what would keep it",
    Phase.STOPPING: "Wait: its outcome is reported when its pods have ended",
    Phase.REPORTING: "Nothing: the report is repeated until the portal takes it. `dispatcher check` tries the portal",
    Phase.COMPLETED: "Nothing: the model is stored",
    Phase.FAILED: f"Mend what the sentence names. {AGAIN} (`dispatcher retry`)",
}
_HOLDERS = {
    Phase.LAUNCHING: Holder.DISPATCHER,
    Phase.RUNNING: Holder.TRAINER,
    Phase.STOPPING: Holder.KUBELET,
    Phase.REPORTING: Holder.PORTAL,
}


@dataclass(frozen=True)
class Standing:
    """holder: who keeps it, None where nobody does. since, until: epoch seconds, None where that is not known, or for
    ever. then: the code that it fails with at `until`. advice: the one thing to do next. phase: of a Job, or a word of
    `without_job`.
    """

    phase: str
    code: str | None
    sentence: str
    holder: str | None
    since: float | None
    until: float | None
    then: str | None
    advice: str


def standing(
    phase: Phase,
    code: str | None,
    sentence: str,
    *,
    since: float | None,
    holder: str | None = None,
    until: float | None = None,
    then: str | None = None,
    deadline: float | None = None,
) -> Standing:
    """deadline: when the Job's own time limit ends (epoch seconds), None where none runs."""
    who = holder if phase in (Phase.WAITING, Phase.QUEUED) else _HOLDERS.get(phase)
    if deadline is not None and (until is None or deadline < until):
        until, then = deadline, "Timeout"
    if phase is Phase.QUEUED:
        until, then, who = None, None, holder or Holder.KUEUE
    advice = _BY_PHASE.get(phase) or _BY_CODE.get(then or "") or _BY_HOLDER.get(Holder(who) if who else Holder.TRAINER)
    return Standing(phase, code, sentence, who, since, until, then, advice or "Wait: it goes on by itself")
