"""Why one pod failed: a pod of a real cluster → (code, sentence). Pure; the table is docs/troubleshoot.md.

Evidence is quoted, never guessed: the trainer's own words first, then Kubernetes' reasons, then the exit code.
"""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from typing import Any

from dispatcher.cluster import objects
from dispatcher.cluster.objects import KubeObject
from dispatcher.decisions.codes import EXIT_CODES
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
AGAIN = "Put the request on the queue again"


@dataclass(frozen=True)
class Verdict:
    """code: stable, for metrics; sentence: what happened, where, and what to do."""

    code: str
    sentence: str


def trainer_word(pod: KubeObject) -> Verdict | None:
    """The trainer's own termination message, None where it left none, or one that is not of the trainer's contract."""
    text = objects.trainer_end(pod).get("message")
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


def disruption(pod: KubeObject) -> str | None:
    """The reason of a true DisruptionTarget condition."""
    found = objects.condition(pod, "DisruptionTarget")
    return str(found.get("reason", "")) if found else None


def explain(pod: KubeObject) -> Verdict:
    """The verdict on a pod that is over without success, or was taken away while it ran."""
    status = pod.get("status") or {}
    ended = objects.trainer_end(pod)
    exit_code = ended.get("exitCode")
    if ended.get("reason") == "OOMKilled":
        return Verdict("OutOfMemory", _out_of_memory(pod))
    word, disrupted = trainer_word(pod), disruption(pod)
    taken_away = status.get("reason") == "Evicted" or disrupted is not None
    # "Terminated" only means that SIGTERM came; Kubernetes knows why. "Completed" is no reason to have failed.
    if word is not None and word.code != "Completed" and not (word.code == "Terminated" and taken_away):
        return word
    if status.get("reason") == "Evicted":
        text = quoted(status.get("message") or "no text")
        return Verdict("Evicted", f"The node evicted the training pod: {text}. Ask the operator for more of it")
    if disrupted is not None:
        code, why = _DISRUPTIONS.get(disrupted, ("Disrupted", f"Kubernetes disrupted it ({disrupted or 'no reason'})"))
        return Verdict(code, f"The training pod was stopped on {node_of(pod)}: {why}. {AGAIN}")
    if not ended:
        return _never_ran(pod)
    return _by_exit_code(exit_code, ended)


def _never_ran(pod: KubeObject) -> Verdict:
    """Phase Failed without a container status: the node refused the pod, or lost it."""
    status = pod.get("status") or {}
    reason, text = status.get("reason"), quoted(status.get("message") or "")
    for container in status.get("initContainerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            return Verdict(
                "InitFailed",
                f"The init container {container.get('name')} of the training pod ended with exit code "
                f"{ended['exitCode']}: {_tail(ended.get('message')) or 'it left no message'}. Tell the operator",
            )
    if reason:
        return Verdict("NodeRejected", f"{node_of(pod)} refused the training pod ({reason}): {text}. {AGAIN}")
    if objects.is_deleting(pod):
        return Verdict("PodDeleted", f"The training pod was deleted before it ended. {AGAIN}")
    return Verdict("PodLost", f"The training pod ended on {node_of(pod)} without a word of why. {AGAIN}")


def _by_exit_code(exit_code: Any, ended: KubeObject) -> Verdict:
    if exit_code == 137:
        sentence = (
            "The training process was killed from outside (signal 9, SIGKILL) without a reason that Kubernetes knows; "
            f"memory is the usual one. {AGAIN}, with a smaller batch or a larger memory limit"
        )
        return Verdict("Killed", sentence)
    tail = _tail(ended.get("message"))
    said = f": {tail}" if tail else "; it left no message"
    if not isinstance(exit_code, int):
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


def _out_of_memory(pod: KubeObject) -> str:
    limit = ((objects.trainer_container(pod).get("resources") or {}).get("limits") or {}).get("memory")
    of = f"its memory limit of {limit}" if limit else "the memory of its node"
    do = "Use a smaller batch size, or ask the operator for a larger memory limit"
    return f"Out of memory: the training used more than {of}. {do}"


def node_of(pod: KubeObject) -> str:
    node = (pod.get("spec") or {}).get("nodeName")
    return f"node {node}" if node else "its node"


def quoted(text: str | None) -> str:
    """Somebody else's text as a part of a sentence of ours: on one line, without secrets, at most 500 characters."""
    return redact(one_line(text or ""))[:500].rstrip(". ")


def _tail(text: str | None) -> str:
    """The last lines of a log, on one line, at most 600 characters."""
    lines = [line for line in (plain(line).strip() for line in (text or "").splitlines()) if line]
    return redact(" | ".join(lines[-5:]))[-600:]
