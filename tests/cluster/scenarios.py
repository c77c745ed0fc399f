"""What is tried, one function each: it does it, returns what was seen, or raises Unexpected with that."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from local_stack.demo.requests import QUICK
from local_stack.stack import trainer_of
from tests.cluster.overlay import MISSING, repository_of
from tests.cluster.trial import ENDS_AT_ONCE, ENDS_THE_SECOND_TIME, RUNS_ON, Ground, Trial, Unexpected
from tests.world.manifests.kustomized import Object
from tests.world.repository import ROOT

Configure = Callable[[Ground, Object], dict[str, str]]
"""Changes the Job template of a scenario's dispatchers and returns settings of theirs beside the usual ones."""


@dataclass(frozen=True)
class Scenario:
    """One row. needs: what the ground must be able to do. with_: how dispatchers differ. kueue: under Kueue, too."""

    name: str
    expected: str
    run: Callable[[Trial], str]
    needs: str = ""
    with_: Configure | None = None
    kueue: bool = False


def usual(ground: Ground, template: Object) -> dict[str, str]:
    """Dispatchers that let a configuration name a program, and do not make anybody wait."""
    trainer_of(template)["env"].append({"name": "ALLOW_COMMAND", "value": "on"})
    gpus = trainer_of(template)["resources"]["limits"].get("nvidia.com/gpu", "0")
    pace = {
        "POLL_MAX_SECONDS": "2",
        # After which the message that a killed dispatcher had in hand comes again.
        "VISIBILITY_TIMEOUT_SECONDS": "60",
        "STATUS_PROGRESS_SECONDS": "1",
        "STATUS_LAG_SECONDS": "0",
    }
    return {"QUEUE_NAME": ground.queue, "MAX_GPUS": gpus, "RESYNC_SECONDS": "5", **pace}


def no_image(ground: Ground, template: Object) -> dict[str, str]:
    # Of the repository that the admission policy allows.
    trainer_of(template)["image"] = f"{repository_of(ground.trainer)}:{MISSING}"
    return {"IMAGE_PULL_GRACE_SECONDS": str(ground.grace)}


def no_secret(ground: Ground, template: Object) -> dict[str, str]:
    source = {"secretKeyRef": {"name": MISSING, "key": "KEY"}}
    trainer_of(template)["env"].append({"name": "KEY", "valueFrom": source})
    return {"CONTAINER_CONFIG_GRACE_SECONDS": str(ground.grace)}


def no_node(ground: Ground, template: Object) -> dict[str, str]:
    template["spec"]["template"]["spec"]["nodeSelector"] = {MISSING: "true"}
    return {"UNSCHEDULABLE_LIMIT_SECONDS": str(ground.grace)}


def _contracts(trial: Trial) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contracts"]
    done = subprocess.run(
        [*command, *trial.ground.contract_suite()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]
    if done.returncode:
        raise Unexpected(f"{last}\n{done.stdout[-6000:]}")
    return last


def _check(trial: Trial) -> str:
    return _checked(*trial.ground.command("check"))


def _check_in_pod(trial: Trial) -> str:
    model = trial.model("check", ["task: tabular", "data: {target: diagnosis}"])
    words = ("check", "--in-pod", model, "--dataset", trial.dataset, "--wait", "300")
    return _checked(*trial.ground.command(*words, seconds=400))


def _checked(code: int, said: str) -> str:
    lines = said.splitlines()
    failed = [line for line in lines if line.startswith("FAIL")]
    if code or failed:
        raise Unexpected(f"exit code {code}: {'; '.join(failed) or said[-500:]}")
    fine = len([line for line in lines if line.startswith("ok")])
    return "; ".join([f"{fine} lines ok", *(line for line in lines if line.startswith("WARN"))])


def _trained(trial: Trial) -> str:
    model = trial.model("table", ["task: tabular", "data: {target: diagnosis}", *QUICK])
    trial.send(model)
    return trial.ends(model, "Completed")


def _program(trial: Trial) -> str:
    return trial.ends(trial.program("program", ENDS_AT_ONCE), "Completed")


def _again(trial: Trial) -> str:
    model = trial.program("again", ENDS_AT_ONCE)
    trial.ends(model, "Completed")
    trial.portal.set_model(model[6:], "Reconfigure")
    trial.send(model)
    trial.wait(lambda: trial.runs(model) == 2, "a second run", model)
    return f"{trial.ends(model, 'Completed')}, {trial.runs(model)} runs"


def _refused(trial: Trial) -> str:
    done = trial.model("done", ["task: tabular"], status="Completed")
    trial.send(done)
    trial.send("training-1")
    code = trial.wait(lambda: next(iter(trial.poisoned().values()), None), "an entry in the poison queue")
    trial.wait(trial.empty, "an empty queue")
    if code != "InvalidContainerName" or done in trial.jobs() or trial.portal.model(done[6:]).status != "Completed":
        raise Unexpected(f"poison queue: {code}; {trial.shown(done)}; Jobs: {trial.jobs()}")
    return f"no Job, still {trial.shown(done)}; poison queue: {code}"


def _twice(trial: Trial) -> str:
    model = trial.program("twice", ENDS_THE_SECOND_TIME)
    pod = trial.pod(model)
    trial.send(model)
    trial.wait(trial.empty, "the second request to be consumed", model)
    now = trial.kube.pod(model)
    if now is None or now["metadata"]["uid"] != pod["metadata"]["uid"]:
        raise Unexpected(f"another pod runs; {trial.shown(model)}")
    code, said = trial.ground.command("cancel", model, seconds=120)
    if code:
        raise Unexpected(f"cancel ended with {code}: {said[-300:]}")
    return trial.ends(model, "Failed", "cancelled by the operator")


def _pod_taken(take: Callable[[Trial, str], object], name: str) -> Callable[[Trial], str]:
    """A training whose pod is taken away once: another one goes on from its checkpoint."""

    def run(trial: Trial) -> str:
        model = trial.program(name, ENDS_THE_SECOND_TIME)
        first = trial.pod(model)
        take(trial, first["metadata"]["name"])
        shown = trial.ends(model, "Completed")
        last = trial.kube.pod(model)
        if last is None or last["metadata"]["uid"] == first["metadata"]["uid"]:
            raise Unexpected(f"{shown}, but no other pod")
        return f"{shown}, by another pod"

    return run


def _deleted_job(trial: Trial) -> str:
    model = trial.program("deleted", RUNS_ON)
    trial.wait(lambda: "Running" in trial.shown(model), "word of its training", model)
    trial.delete("jobs", model, propagationPolicy="Background")
    shown = trial.ends(model, "Failed", "was deleted")
    trial.wait(lambda: trial.kube.get("jobs", model) is None, "the Job to be gone")
    return shown


def _quota(trial: Trial) -> str:
    quota = {"metadata": {"name": MISSING}, "spec": {"hard": {"pods": "0"}}}
    trial.kube.create("resourcequotas", quota)
    try:
        model = trial.program("quota", ENDS_AT_ONCE)
        trial.wait(lambda: "Waiting for quota" in trial.shown(model), '"Waiting for quota"', model)
    finally:
        trial.kube.delete("resourcequotas", MISSING)
    return f"Waiting for quota, then {trial.ends(model, 'Completed')}"


def _out_of_memory(trial: Trial) -> str:
    script = "exec python3 -c 'kept = []\nwhile True: kept.append(bytearray(1 << 26))'"
    return trial.ends(trial.program("memory", script), "Failed", "Out of memory")


def _deadline(trial: Trial) -> str:
    model = trial.program("deadline", RUNS_ON, time_limit_seconds=15 if trial.ground.grace > 1 else 4)
    return trial.ends(model, "Failed", "did not end within its time limit")


def _ends_with(words: str, name: str) -> Callable[[Trial], str]:
    return lambda trial: trial.ends(trial.program(name, ENDS_AT_ONCE), "Failed", words)


def _killed_dispatchers(trial: Trial) -> str:
    models = [trial.program(f"burst-{number}", ENDS_AT_ONCE) for number in range(trial.ground.burst)]
    there = trial.wait(lambda: set(trial.jobs()) & set(models), "a first Job")
    trial.ground.kill_dispatchers()
    for model in models:
        trial.ends(model, "Completed")
    if doubled := [model for model in models if trial.runs(model) != 1]:
        raise Unexpected(f"trained more than once: {', '.join(doubled)}")
    return f"killed at {len(there)} of {len(models)} Jobs; all Completed, each trained once"


def _in_turn(trial: Trial) -> str:
    first = trial.program("first", ENDS_THE_SECOND_TIME)
    pod = trial.pod(first)["metadata"]["name"]
    second = trial.program("second", ENDS_AT_ONCE)
    waits = trial.wait(lambda: "Queued by Kueue" in trial.shown(second) and trial.shown(second), "its place", second)
    _delete_pod(trial, pod)
    trial.ends(first, "Completed")
    return f"{waits}; then {trial.ends(second, 'Completed')}"


def _delete_pod(trial: Trial, pod: str) -> None:
    trial.delete("pods", pod)


def _kill_pod(trial: Trial, pod: str) -> None:
    trial.delete("pods", pod, gracePeriodSeconds=0)


SCENARIOS = (
    Scenario("contract suite", "all pass", _contracts, needs="contracts"),
    Scenario("check", "exit code 0", _check, kueue=True),
    Scenario("check in a pod", "exit code 0: image, storage, network", _check_in_pod, needs="network"),
    Scenario("a table", "Completed, published", _trained),
    Scenario("a program", "Completed, published", _program, kueue=True),
    Scenario("again after Reconfigure", "Completed, two runs", _again),
    Scenario("refused requests", "consumed: no Job, a poison entry", _refused),
    Scenario("requested twice, then cancelled", "one training, Failed: cancelled", _twice),
    Scenario("deleted pod", "Completed, by another pod", _pod_taken(_delete_pod, "pod"), kueue=True),
    Scenario("pod killed without grace", "Completed, by another pod", _pod_taken(_kill_pod, "killed")),
    Scenario("evicted pod", "Completed, by another pod", _pod_taken(Trial.evict, "evicted")),
    Scenario(
        "drained node",
        "Completed, by another pod",
        _pod_taken(lambda trial, pod: trial.ground.drain(pod), "drained"),
        needs="drain",
    ),
    Scenario("deleted Job", "Failed: deleted", _deleted_job, kueue=True),
    Scenario("quota that is full", "waits, then Completed", _quota),
    Scenario("out of memory", "Failed: out of memory", _out_of_memory, needs="memory"),
    Scenario("time limit", "Failed: time limit", _deadline),
    Scenario("dispatchers killed mid-launch", "each trained once", _killed_dispatchers),
    Scenario("image that cannot be pulled", "Failed: image", _ends_with("cannot be pulled", "image"), with_=no_image),
    Scenario("missing Secret", "Failed: Secret", _ends_with(MISSING, "secret"), with_=no_secret),
    Scenario("no node for it", "Failed: no node", _ends_with("No node could take", "node"), with_=no_node),
    Scenario("one after the other", "queued, then Completed", _in_turn, needs="kueue"),
)


def configuration(ground: Ground, scenario: Scenario) -> tuple[dict[str, str], Object]:
    """Settings and Job template of a scenario's dispatchers."""
    template = copy.deepcopy(ground.template)
    settings = usual(ground, template)
    return settings | (scenario.with_(ground, template) if scenario.with_ else {}), template
