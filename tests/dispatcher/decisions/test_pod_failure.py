"""dispatcher.decisions.pod_failure: why one pod failed, from what the trainer, Kubernetes and the exit code say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dispatcher.cluster.pods import Pod
from dispatcher.decisions.codes import EXIT_CODES
from dispatcher.decisions.pod_failure import explain, trainer_word
from dispatcher.decisions.verdicts import Verdict
from tests.world.builders import T0, a_condition, a_pod, terminated
from trainer_image import errors


def word(code: object = "DatasetMissing", message: object = "No dataset", **more: object) -> str:
    return json.dumps({"message": message, "code": code, **more})


def a_failed(exit_code: int, said: str | None = None, *conditions: dict[str, Any], **arguments: Any) -> Pod:
    return a_pod(*conditions, phase="Failed", state=terminated(exit_code, said), **arguments)


def test_the_exit_codes_are_those_of_the_trainer() -> None:
    table: dict[int, set[str]] = {}
    kinds = [errors.TrainerError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        table.setdefault(kind.exit_code, set()).add(kind.code)
    assert set(EXIT_CODES) == set(table)
    for exit_code, code in EXIT_CODES.items():
        assert code in table[exit_code]


def test_the_trainers_word_is_taken_as_it_is() -> None:
    text = word("TrainingDiverged", "Training diverged at step 7", exit=80, retryable=False, run_id="r", step=7)
    assert explain(a_failed(80, text)) == Verdict("TrainingDiverged", "Training diverged at step 7")


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "a log line",
        "[1]",
        "null",
        "5",
        "{",
        word(code=""),
        word(code="Two Words"),
        word(code="Ünvalid"),
        word(code="x" * 65),
        word(code=5),
        word(message=""),
        word(message="  \n"),
        word(message=None),
        word(message=["x"]),
        '{"message": "no code"}',
        '{"code": "NoMessage"}',
        "[" * 4000,
        '{"code": ' + "9" * 5000,
        '{"code":"X","message":' + "[" * 4000,
    ],
)
def test_what_is_no_word_of_the_trainer_is_treated_as_a_log(text: str | None) -> None:
    pod = a_failed(66, text)
    assert trainer_word(pod) is None
    assert explain(pod).code == "DatasetMissing"


def test_a_word_is_made_fit_for_the_portal() -> None:
    found = trainer_word(
        a_failed(79, '{"code":"UserCodeFailed","message":" \\u001b[31mred\\u001b[0m \\ud83d a\\u0000b "}')
    )
    assert found == Verdict("UserCodeFailed", "red   a b")


def test_a_word_passes_no_secret_on() -> None:
    found = trainer_word(a_failed(77, word("PermissionDenied", "refused: AccountKey=c2VjcmV0c2VjcmV0")))
    assert found is not None
    assert "c2VjcmV0" not in found.sentence


@pytest.mark.parametrize(
    ("pod", "code", "words"),
    [
        # Out of memory, whatever the trainer managed to say.
        (
            a_pod(phase="Failed", state=terminated(137, word(), "OOMKilled"), limits={"memory": "16Gi"}),
            "OutOfMemory",
            "its memory limit of 16Gi",
        ),
        (a_pod(phase="Failed", state=terminated(137, reason="OOMKilled")), "OutOfMemory", "the memory of its node"),
        (a_failed(81, word("GpuOutOfMemory", "Out of GPU memory at batch size 1")), "GpuOutOfMemory", "batch size 1"),
        # Evicted and disrupted.
        (
            a_pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory. Threshold quantity"),
            "Evicted",
            "low on resource: memory",
        ),
        (
            a_failed(143, word("Terminated", "Stopped by SIGTERM"), reason="Evicted", message="low on memory"),
            "Evicted",
            "low on memory",
        ),
        *(
            (a_failed(137, None, a_condition("DisruptionTarget", reason=reason)), code, "node node-7")
            for reason, code in {
                "PreemptionByScheduler": "Preempted",
                "DeletionByTaintManager": "NodeLost",
                "DeletionByPodGC": "NodeLost",
                "EvictionByEvictionAPI": "Drained",
                "TerminationByKubelet": "NodeShutdown",
                "SomethingNew": "Disrupted",
            }.items()
        ),
        (
            a_failed(143, word("Terminated", "Stopped"), a_condition("DisruptionTarget", reason="DeletionByPodGC")),
            "NodeLost",
            "its node is gone",
        ),
        (
            a_failed(66, word(), a_condition("DisruptionTarget", reason="DeletionByPodGC")),
            "DatasetMissing",
            "No dataset",
        ),
        (
            a_failed(137, None, a_condition("DisruptionTarget", "False", reason="DeletionByPodGC")),
            "Killed",
            "SIGKILL",
        ),
        # It never ran.
        *(
            (a_pod(phase="Failed", reason=reason, message="Pod was rejected: x"), "NodeRejected", reason)
            for reason in ("UnexpectedAdmissionError", "NodeAffinity", "OutOfnvidia.com/gpu")
        ),
        (a_pod(phase="Failed"), "PodLost", "node node-7"),
        (a_pod(phase="Failed", node=None), "PodLost", "its node"),
        (a_pod(phase="Running", deleted_at=T0), "PodDeleted", "deleted before it ended"),
        (a_failed(137, deleted_at=T0 + 55), "PodDeleted", "deleted before it ended"),
        (a_failed(137, deleted_at=T0 + 65), "Killed", "signal 9"),  # deleted with its node, when it had ended
        # Exit codes.
        (a_failed(64), "UsageError", "it left no message"),
        (a_failed(79, "loading\nTrace\n\n  RuntimeError: boom\n"), "UserCodeFailed", "Trace | RuntimeError: boom"),
        (a_failed(143), "Terminated", "exit code 143"),
        (a_failed(137), "Killed", "signal 9"),
        (a_failed(137), "Killed", "memory is the usual one"),
        (a_failed(139), "Killed", "signal 11 (SIGSEGV)"),
        (a_failed(134, "abort"), "Killed", "signal 6 (SIGABRT): abort"),
        (a_failed(150), "Killed", "signal 22"),
        (a_failed(128), "TrainerFailed", "exit code 128"),
        (a_failed(1, "x"), "TrainerFailed", "exit code 1: x"),
        (a_failed(255, "it left a log"), "TrainerFailed", "exit code 255: it left a log"),
    ],
)  # fmt: skip
def test_a_failed_pod_is_explained(pod: Pod, code: str, words: str) -> None:
    verdict = explain(pod)
    assert verdict.code == code
    assert words in verdict.sentence
    assert verdict.sentence == verdict.sentence.strip()


def test_a_failed_init_container_is_named() -> None:
    init = {"name": "download", "state": {"terminated": {"exitCode": 3, "message": "no route\n"}}}
    verdict = explain(a_pod(phase="Failed", status={"initContainerStatuses": [init]}))
    assert verdict.code == "InitFailed"
    assert "download" in verdict.sentence
    assert "no route" in verdict.sentence


def test_a_log_is_quoted_from_its_end_on_one_line() -> None:
    log = "\n".join(f"line {number} " + "x" * 200 for number in range(50)) + "\n\x1b[31mValueError: last\x1b[0m\r\n"
    sentence = explain(a_failed(79, log)).sentence
    assert sentence.endswith("ValueError: last")
    assert len(sentence) < 700
    assert sentence.isprintable()


def test_a_log_passes_no_secret_on() -> None:
    assert "c2VjcmV0" not in explain(a_failed(1, "connecting with AccountKey=c2VjcmV0c2VjcmV0;x")).sentence
