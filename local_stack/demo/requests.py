"""The demo's requests and the right outcome of each, one row a request. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from portal_client.messages import COMPLETED

Kind = Literal["trained", "failed", "rejected", "duplicate", "poisoned"]

# Bounded by epochs, not by time: the figures are to be the same on a busy machine.
QUICK = ("model: {preset: fast}", "train: {time_budget: 3m, seed: 0}")


@dataclass(frozen=True)
class Expectation:
    """What is right for one request.

    kind: trained    Completed at the portal, a model published whose `metric` is at least `at_least`
          failed     Failed at the portal, with a message that `pattern` (a regular expression) matches
          rejected   the portal has the status it had before, and there is no Job
          duplicate  the request was consumed and its model was trained once only
          poisoned   an entry in the poison queue with this `code`
    """

    kind: Kind
    metric: str = ""
    at_least: float = 0.0
    pattern: str = ""
    code: str = ""


@dataclass(frozen=True)
class Request:
    """One message of the demo, and what is there when it is sent.

    container: the model's container, None where the message names none that could be one.
    portal: (status, message) that the portal has beforehand; None: the portal knows no such model.
    config: lines of config.yaml. after: sent once the request of that name is training.
    """

    name: str
    what: str
    message: str
    expected: Expectation
    container: str | None = None
    portal: tuple[str, str] | None = None
    config: Sequence[str] = ()
    after: str | None = None

    @property
    def model_id(self) -> str | None:
        return None if self.container is None else self.container.removeprefix("model-")


@dataclass(frozen=True)
class Outcome:
    """What was seen of one request when everything was settled.

    portal: (status, message) now. job: whether there is one. waited, trained: seconds, None: nothing ran.
    metrics: the published model's. runs: run folders in its container. place: where it is.
    poison: (code, sentence) of the request's entry in the poison queue.
    """

    portal: tuple[str, str] | None = None
    job: bool = False
    waited: float | None = None
    trained: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    runs: int = 0
    place: str = ""
    poison: tuple[str, str] | None = None


def train_message(model: str, dataset: str | None, **more: object) -> str:
    """A request as the portal's backend writes it."""
    body: dict[str, object] = {"task": "train", "model_container_name": model}
    if dataset is not None:
        body["dataset_container_name"] = dataset
    return json.dumps({**body, **more})


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


CREATED = ("Created", "Model created and ready for training")

REQUESTS: tuple[Request, ...] = (
    Request(
        name="table",
        what="a table: is a tumour malignant, by 30 numbers",
        container="model-tumours",
        message=train_message("model-tumours", "dataset-tumours"),
        portal=CREATED,
        config=("task: tabular", "data: {target: diagnosis}", *QUICK),
        expected=Expectation("trained", metric="accuracy", at_least=0.90),
    ),
    Request(
        name="images",
        what="images: handwritten digits; base64, as .NET sends it",
        container="model-digits",
        message=_base64(train_message("model-digits", "dataset-digits")),
        portal=CREATED,
        config=("task: image_classification", "model: {preset: fast}", "train: {time_budget: 3m, epochs: 8, seed: 0}"),
        expected=Expectation("trained", metric="accuracy", at_least=0.90),
    ),
    Request(
        name="reconfigure",
        what="a model in status Reconfigure: the course of diabetes, a number",
        container="model-70fb5fb0-9b8a-4b9f-9f6f-2cc4e7b11de8",
        message=train_message("model-70fb5fb0-9b8a-4b9f-9f6f-2cc4e7b11de8", None),
        portal=("Reconfigure", "Retrain with the new configuration"),
        config=("task: tabular", "dataset: dataset-diabetes", "data: {target: progression}", *QUICK),
        expected=Expectation("trained", metric="r2", at_least=0.20),
    ),
    Request(
        name="no dataset",
        what="the container of its dataset is missing",
        container="model-nodata",
        message=train_message("model-nodata", "dataset-missing"),
        portal=CREATED,
        config=("task: tabular", "data: {target: price}", *QUICK),
        expected=Expectation("failed", pattern=r"Failed to download dataset from container: dataset-missing"),
    ),
    Request(
        name="bad config",
        what="its config.yaml has a misspelt key",
        container="model-typo",
        message=train_message("model-typo", "dataset-tumours"),
        portal=CREATED,
        config=("task: tabular", "data: {target: diagnosis}", "train: {time_budgt: 20s}"),
        expected=Expectation("failed", pattern=r"Invalid configuration: train\.time_budgt: .*time_budget"),
    ),
    Request(
        name="completed",
        what="its model is already Completed",
        container="model-done",
        message=train_message("model-done", "dataset-tumours"),
        portal=("Completed", COMPLETED),
        expected=Expectation("rejected"),
    ),
    Request(
        name="bad name",
        what="its container name is not that of a model",
        message=train_message("training-1", "dataset-tumours"),
        expected=Expectation("poisoned", code="InvalidContainerName"),
    ),
    Request(
        name="no JSON",
        what="it is not JSON",
        message="please train my model",
        expected=Expectation("poisoned", code="NotJson"),
    ),
    Request(
        name="table again",
        what="the first one again, while it runs",
        container="model-tumours",
        message=train_message("model-tumours", "dataset-tumours"),
        after="table",
        expected=Expectation("duplicate"),
    ),
)


def on_nodes(nodes: int) -> Request:
    """A training that is larger than one node, each of them with one GPU."""
    return Request(
        name=f"{nodes} nodes",
        what=f"handwritten digits once more, on {nodes} nodes together",
        container="model-digits-team",
        message=train_message("model-digits-team", "dataset-digits", resources={"nodes": nodes, "gpus": 1}),
        portal=CREATED,
        config=("task: image_classification", "model: {preset: fast}", "train: {time_budget: 3m, epochs: 8, seed: 0}"),
        expected=Expectation("trained", metric="accuracy", at_least=0.90),
    )


def mismatch(request: Request, outcome: Outcome) -> str | None:
    """None where the outcome is the expected one, else one sentence that says what is wrong."""
    expected = request.expected
    if expected.kind == "poisoned":
        if outcome.poison is None:
            return f"it should be in the poison queue as {expected.code}, but is not"
        if outcome.poison[0] != expected.code:
            return f"the poison queue gives {outcome.poison[0]} as its reason, not {expected.code}"
        return None
    if outcome.poison is not None:
        return f"it is in the poison queue ({outcome.poison[0]}), where it does not belong"
    if expected.kind == "rejected":
        if outcome.portal != request.portal:
            return f"its status should still be {_shown(request.portal)}, but is {_shown(outcome.portal)}"
        return "there is a Job for it, but there should be none" if outcome.job else None
    if expected.kind == "failed":
        return _failed_otherwise(expected, outcome)
    return _trained_otherwise(expected, outcome)


def _failed_otherwise(expected: Expectation, outcome: Outcome) -> str | None:
    if outcome.portal is None or outcome.portal[0] != "Failed":
        return f"its status should be Failed, but is {_shown(outcome.portal)}"
    if not re.search(expected.pattern, outcome.portal[1]):
        return f'the portal\'s message should match "{expected.pattern}", but is "{outcome.portal[1]}"'
    return None


def _trained_otherwise(expected: Expectation, outcome: Outcome) -> str | None:
    if outcome.portal is None or outcome.portal[0] != "Completed":
        return f"its status should be Completed, but is {_shown(outcome.portal)}"
    if outcome.runs != 1:
        return f"its container should hold one run, but holds {outcome.runs}"
    if expected.kind == "duplicate":
        return None
    figure = outcome.metrics.get(expected.metric)
    if figure is None:
        return f"its report has no test {expected.metric}, but {', '.join(outcome.metrics) or 'nothing'}"
    if figure < expected.at_least:
        return f"its test {expected.metric} should be at least {expected.at_least:g}, but is {figure:.3f}"
    return None


def _shown(portal: tuple[str, str] | None) -> str:
    if portal is None:
        return "unknown to the portal"
    return f"{portal[0]} ({portal[1]})" if portal[1] else portal[0]
