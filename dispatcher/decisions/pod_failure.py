"""Why one pod failed: a pod of a real cluster → (code, sentence). Pure; the table is docs/troubleshoot.md.

Evidence is quoted, never guessed: the trainer's own words first, then Kubernetes' reasons, then the exit code.
"""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass

from dispatcher.cluster.objects import Pod, Terminated
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
    return _by_exit_code(ended)


def _never_ran(pod: Pod) -> Verdict:
    """Phase Failed without a container status: the node refused the pod, or lost it."""
    reason, text = pod.status.reason, quoted(pod.status.message)
    for container in pod.status.init_container_statuses:
        ended = container.state.terminated
        if ended and ended.exit_code:
            return Verdict(
                "InitFailed",
                f"The init container {container.name} of the training pod ended with exit code "
                f"{ended.exit_code}: {_tail(ended.message) or 'it left no message'}. Tell the operator",
            )
    if reason:
        return Verdict("NodeRejected", f"{node_of(pod)} refused the training pod ({reason}): {text}. {AGAIN}")
    if pod.is_deleting:
        return Verdict("PodDeleted", f"The training pod was deleted before it ended. {AGAIN}")
    return Verdict("PodLost", f"The training pod ended on {node_of(pod)} without a word of why. {AGAIN}")


def _by_exit_code(ended: Terminated) -> Verdict:
    exit_code = ended.exit_code
    if exit_code == 137:
        sentence = (
            "The training process was killed from outside (signal 9, SIGKILL) without a reason that Kubernetes knows; "
            f"memory is the usual one. {AGAIN}, with a smaller batch or a larger memory limit"
        )
        return Verdict("Killed", sentence)
    tail = _tail(ended.message)
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
