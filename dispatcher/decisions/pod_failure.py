"""Why one pod failed: a pod of a real cluster → (code, sentence). Pure; the table is docs/troubleshoot.md.

Evidence is quoted, never guessed: the trainer's own words first, then Kubernetes' reasons, then the exit code.
"""

from __future__ import annotations

import json
import re
import signal

from dispatcher.cluster.objects import timestamp
from dispatcher.cluster.pods import Pod, Terminated
from dispatcher.decisions.codes import EXIT_CODES
from dispatcher.decisions.containers import is_sidecar
from dispatcher.decisions.verdicts import Verdict
from portal_client.messages import AGAIN
from training_common.redaction import redact
from training_common.text import one_line, plain

# Reasons of the pod condition DisruptionTarget (kubernetes.io, "Pod disruption conditions").
_DISRUPTIONS = {
    "PreemptionByScheduler": ("Preempted", "a pod of higher priority took its place"),
    "DeletionByTaintManager": ("NodeLost", "its node stopped answering"),
    "DeletionByPodGC": ("NodeLost", "its node is gone"),
    "EvictionByEvictionAPI": ("Drained", "its node was drained"),
    "TerminationByKubelet": ("NodeShutdown", "its node ran out of resources or was shut down"),
}
# The kubelet's reasons for a pod whose node shut down (1.21 and on; before that "Shutdown").
_NODE_SHUTDOWN = frozenset({"Terminated", "NodeShutdown", "Shutdown"})
# Reasons of a container that never ran: the exit code, 128 mostly, is the kubelet's own invention.
_NOT_STARTED = frozenset({"StartError", "ContainerCannotRun", "CreateContainerError", "RunContainerError"})
# The kubelet did not find the container any more (137), or containerd its process (255).
_UNKNOWN_END = frozenset({"ContainerStatusUnknown", "Unknown"})
# What runc says when execve(2) cannot run the command, in the words of Go and Linux.
_NO_COMMAND = (
    "executable file not found",
    "no such file or directory",
    "permission denied",
    "exec format error",
    "is a directory",
    "not a directory",
)
# What runc could not run, unless it is a part of the GPU runtime itself.
_COMMAND = re.compile(r'container process: (?:error during container init: )?exec: "(?!nvidia-(?:container|ctk))')
# NVIDIA's container toolkit (hook, library, CDI) and AMD's devices, as they stand in the runtime's errors.
_GPU_RUNTIME = ("nvidia", "libcuda", "cdi device", "/dev/kfd", "/dev/dri", "driver/library version mismatch")
# Exit codes of a program that ended because it was told to (SIGKILL, SIGTERM).
_BY_DELETION = (137, 143)
_LAST_DELETION = 2.0


def trainer_word(pod: Pod) -> Verdict | None:
    """The trainer's own termination message, None where it left none, or one that is not of the trainer's contract."""
    text = pod.trainer_end.message
    try:
        word = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None  # the log's tail stands in for a missing message
    if not isinstance(word, dict):
        return None
    code, sentence = word.get("code"), word.get("message")
    if not isinstance(code, str) or not code.isascii() or not code.isalnum() or len(code) > 64:
        return None
    if not isinstance(sentence, str) or not plain(sentence).strip():
        return None
    return Verdict(code, redact(plain(sentence).strip()))


def disruption(pod: Pod) -> str | None:
    """The reason of a true DisruptionTarget condition."""
    found = pod.condition("DisruptionTarget")
    return found.reason if found else None


def explain(pod: Pod) -> Verdict:
    """The verdict on a pod that is over without success, or was taken away while it ran."""
    ended = pod.trainer_end
    if ended.reason == "OOMKilled":
        return Verdict("OutOfMemory", _out_of_memory(pod))
    word, disrupted = trainer_word(pod), disruption(pod)
    taken_away = pod.status.reason == "Evicted" or disrupted is not None
    # "Terminated" only means that SIGTERM came; Kubernetes knows why. "Completed" is no reason to have failed.
    if word is not None and word.code != "Completed" and not (word.code == "Terminated" and taken_away):
        return word
    if pod.status.reason == "Evicted":
        text = quoted(pod.status.message or "no text")
        return Verdict("Evicted", f"The node evicted the training pod: {text}. Ask the operator for more of it")
    if disrupted is not None:
        code, why = _DISRUPTIONS.get(disrupted, ("Disrupted", f"Kubernetes disrupted it ({disrupted or 'no reason'})"))
        return Verdict(code, f"The training pod was stopped on {node_of(pod)}: {why}. {AGAIN}")
    if not pod.has_ended:
        return _never_ran(pod)
    if pod.status.reason in _NODE_SHUTDOWN:
        return _node_shutdown(pod)
    return _by_kubernetes(pod, ended, "trainer container") or _by_exit_code(pod, ended)


def start_failure(container: str, reason: str, text: str) -> Verdict | None:
    """Why the runtime could not start a container, by its own words; None where they do not tell.

    reason, text: Kubernetes', of the container's state. Every runtime quotes runc, and the words of execve(2) in it.
    """
    words = text.lower()
    is_command = _COMMAND.search(words) is not None
    said = f"({reason}): {quoted(text) or 'no text'}"
    if not is_command and any(word in words for word in _GPU_RUNTIME):
        sentence = f"The GPU runtime of the node could not start the {container} {said}. {AGAIN}; who runs the cluster"
        return Verdict("GpuRuntimeFailed", f"{sentence} looks at the node's GPU driver and container toolkit")
    if any(word in words for word in _NO_COMMAND) and ("exec" in words or "executable" in words):
        sentence = f"The command of the {container} cannot be run in its image {said}. Tell the operator"
        return Verdict("CommandNotFound", sentence)
    return None


def _by_kubernetes(pod: Pod, ended: Terminated, container: str) -> Verdict | None:
    """What Kubernetes itself says of a container that ended; None where its program ended by itself."""
    reason = ended.reason
    if reason in _NOT_STARTED:
        other = Verdict(
            "RuntimeFailed",
            f"{node_of(pod).capitalize()} could not start the {container} ({reason}): "
            f"{quoted(ended.message) or 'no text'}. {AGAIN}",
        )
        return start_failure(container, reason, ended.message) or other
    if reason in _UNKNOWN_END:
        text = quoted(ended.message) if reason == "ContainerStatusUnknown" else _tail(ended.message)
        sentence = f"{node_of(pod).capitalize()} lost the {container} and does not know how it ended ({reason})"
        return Verdict("ContainerLost", f"{sentence}{': ' if text else ''}{text.rstrip('. ')}. {AGAIN}")
    if ended.exit_code == 137 and deleted_while_running(pod, ended):
        return _deleted()
    return None


def deleted_while_running(pod: Pod, ended: Terminated) -> bool:
    """Whether this container of it ended after somebody asked for the pod's deletion: an earlier end has its own cause.

    One whose end has no time counts as stopped by the deletion.
    """
    gone, finished = pod.gone_at, timestamp(ended.finished_at)
    if gone is None:
        return False
    # The kubelet's last deletion, with a grace period of 0, comes a second after the container's end (recorded).
    grace = max(pod.metadata.deletion_grace_period_seconds, _LAST_DELETION)
    return finished is None or finished >= gone - grace


def _deleted() -> Verdict:
    return Verdict("PodDeleted", f"The training pod was deleted before it ended. {AGAIN}")


def _node_shutdown(pod: Pod) -> Verdict:
    text = quoted(pod.status.message)
    why = f"its node was shut down{': ' if text else ''}{text}"
    return Verdict("NodeShutdown", f"The training pod was stopped on {node_of(pod)}: {why}. {AGAIN}")


def _never_ran(pod: Pod) -> Verdict:
    """Phase Failed without a container status: the node refused the pod, or lost it; or an init container failed."""
    reason, text = pod.status.reason, quoted(pod.status.message)
    # The kubelet ends a native sidecar with its pod: its exit code explains nothing (F50).
    sidecars = {container.name for container in pod.spec.init_containers if is_sidecar(container)}
    for container in pod.status.init_container_statuses:
        ended = container.state.terminated
        if ended is None or not ended.exit_code or container.name in sidecars:
            continue
        title = f"init container {container.name}"
        if reason in _NODE_SHUTDOWN:
            return _node_shutdown(pod)
        if ended.exit_code in _BY_DELETION and deleted_while_running(pod, ended):
            return _deleted()
        if (said := _by_kubernetes(pod, ended, title)) is not None:
            return said
        if ended.reason == "OOMKilled":
            return Verdict(
                "InitFailed", f"The {title} of the training pod used more than its memory. Tell the operator"
            )
        return Verdict(
            "InitFailed",
            f"The {title} of the training pod ended with exit code "
            f"{ended.exit_code}: {_tail(ended.message) or 'it left no message'}. Tell the operator",
        )
    if reason in _NODE_SHUTDOWN:
        return _node_shutdown(pod)
    if reason:
        return Verdict("NodeRejected", f"{node_of(pod)} refused the training pod ({reason}): {text}. {AGAIN}")
    if pod.is_deleting:
        return _deleted()
    return Verdict("PodLost", f"The training pod ended on {node_of(pod)} without a word of why. {AGAIN}")


def _by_exit_code(pod: Pod, ended: Terminated) -> Verdict:
    exit_code = ended.exit_code
    tail = _tail(ended.message)
    if exit_code == 255 and not tail:
        sentence = f"The trainer container ended on {node_of(pod)} with exit code 255 and no word"
        return Verdict("ContainerLost", f"{sentence}: most often its node or runtime was restarted. {AGAIN}")
    if exit_code == 137:
        # Kubernetes has its own reasons for the ends that it knows of; "Error" is none.
        known = f" ({ended.reason})" if ended.reason not in ("", "Error") else ""
        guess = "" if known else "; memory is the usual one"
        sentence = (
            f"The training process was killed from outside (signal 9, SIGKILL){known} without a reason that Kubernetes "
            f"knows{guess}. {AGAIN}, with a smaller batch or a larger memory limit"
        )
        return Verdict("Killed", sentence)
    said = f": {tail}" if tail else "; it left no message"
    if exit_code is None:
        return Verdict("TrainerFailed", f"The training ended without an exit code{said}")
    if exit_code in EXIT_CODES:
        return Verdict(EXIT_CODES[exit_code], f"The training ended with exit code {exit_code}{said}")
    if 128 < exit_code < 160:
        number = exit_code - 128
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = "unknown"
        return Verdict("Killed", f"The training was ended by signal {number} ({name}){said}")
    return Verdict("TrainerFailed", f"The training ended with exit code {exit_code}{said}")


def _out_of_memory(pod: Pod) -> str:
    limits = pod.trainer.resources.limits
    limit = limits.memory if limits else None
    of = f"its memory limit of {limit}" if limit else "the memory of its node"
    do = "Use a smaller batch size, or ask the operator for a larger memory limit"
    return f"Out of memory: the training used more than {of}. {do}"


def node_of(pod: Pod) -> str:
    return f"node {pod.node}" if pod.node else "its node"


def quoted(text: str | None) -> str:
    """Somebody else's text as a part of a sentence of ours: on one line, without secrets, at most 500 characters."""
    return redact(one_line(text or ""))[:500].rstrip(". ")


def _tail(text: str | None) -> str:
    """The last lines of a log, on one line, at most 600 characters."""
    lines = [line for line in (plain(line).strip() for line in (text or "").splitlines()) if line]
    return redact(" | ".join(lines[-5:]))[-600:]
