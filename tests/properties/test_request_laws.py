"""Laws of names, requests and poison entries, for any input."""

from __future__ import annotations

import base64
import json
import random
import re
import string
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from dispatcher.cluster import names
from dispatcher.launch.job_spec import JobDefaults, build_job, run_id
from dispatcher.launch.job_template import TEAM_ENV
from dispatcher.launch.request import Bounds, MalformedRequest, decode
from dispatcher.queue.poison import MAX_ENTRY_BYTES, PoisonEntry, make_entry, parse_entry
from tests.world.builders import TEMPLATE

BOUNDS = Bounds(max_gpus=8, max_time_limit=3600.0, priority_classes=("urgent",), max_nodes=9)
DEFAULTS = JobDefaults(env={"API_BASE_URL": "https://portal.example.com"}, time_limit=3600)
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

MODEL_IDS = (
    st.lists(st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=20), min_size=1, max_size=6)
    .map("-".join)
    .filter(lambda model_id: len(model_id) <= 55)  # with "model-" and the number of one of nine pods, 63
)
# Text as it can stand in a message: no half Unicode pairs, no NUL.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
KNOWN = {"task", "model_container_name", "dataset_container_name", "resources", "priority", "time_limit_seconds"}
OTHER_FIELDS = st.dictionaries(TEXT.filter(lambda key: key not in KNOWN), JSON, max_size=5)
WISHES = st.fixed_dictionaries(
    {},
    optional={
        "dataset_container_name": st.just("dataset-xyz") | st.none(),
        "resources": st.none()
        | st.fixed_dictionaries(
            {}, optional={"gpus": st.integers(0, 8) | st.none(), "nodes": st.integers(1, 9) | st.none()}
        ),
        "priority": st.just("urgent") | st.none(),
        "time_limit_seconds": st.integers(1, 3600) | st.none(),
    },
)


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    """Valid messages with any other fields."""
    model = f"model-{draw(MODEL_IDS)}"
    return {**draw(OTHER_FIELDS), **draw(WISHES), "task": "train", "model_container_name": model}


def job_of(body: dict[str, Any], message_id: str = "message-1") -> dict[str, Any]:
    request = decode(json.dumps(body), BOUNDS)
    return build_job(TEMPLATE, request, message_id=message_id, queued_at=0.0, defaults=DEFAULTS)


@given(st.lists(MODEL_IDS, min_size=2, max_size=5, unique=True))
def test_distinct_models_have_distinct_valid_names(ids: list[str]) -> None:
    jobs = [job_of({"task": "train", "model_container_name": f"model-{model_id}"}) for model_id in ids]
    for job, model_id in zip(jobs, ids, strict=True):
        name = job["metadata"]["name"]
        assert len(name) <= 63
        assert DNS_LABEL.fullmatch(name)
        for labels in (job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]):
            assert labels[names.MODEL_ID] == model_id
            assert LABEL_VALUE.fullmatch(labels[names.MODEL_ID])
    assert len({job["metadata"]["name"] for job in jobs}) == len(ids)


@given(messages())
def test_without_nodes_or_with_one_a_job_knows_nothing_of_several(body: dict[str, Any]) -> None:
    nodes = (body.get("resources") or {}).get("nodes")
    job = job_of(body)
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (nodes or 1, nodes or 1)
    traces = {"completionMode" in job["spec"], "subdomain" in job["spec"]["template"]["spec"]}
    traces.add(names.TEAM in job["spec"]["template"]["metadata"]["labels"])
    trainer = job["spec"]["template"]["spec"]["containers"][0]
    traces |= {name in {entry["name"] for entry in trainer["env"]} for name in TEAM_ENV}
    assert traces == {(nodes or 1) > 1}


@given(messages())
def test_a_request_that_was_kept_is_read_back_as_it_was(body: dict[str, Any]) -> None:
    first = decode(json.dumps(body), BOUNDS)
    second = decode(first.to_json(), BOUNDS)
    assert second == first
    assert second.to_json() == first.to_json()


@given(messages(), st.booleans(), st.sampled_from(["", "\ufeff", "\r\n ", "\ufeff\n", "\n\ufeff"]))
def test_however_a_message_was_sent_it_is_the_same_request(body: dict[str, Any], ascii_only: bool, before: str) -> None:
    plain = before + json.dumps(body, ensure_ascii=ascii_only)
    encoded = base64.b64encode(plain.encode()).decode()
    assert decode(plain, BOUNDS) == decode(encoded, BOUNDS) == decode(before + encoded, BOUNDS)


def read_or_refused(text: str) -> None:
    try:
        request = decode(text, BOUNDS)
    except MalformedRequest as refused:
        check_refusal(refused)
    else:
        decode(request.to_json(), BOUNDS)


def check_refusal(refused: MalformedRequest) -> None:
    assert refused.code.isalnum()
    assert refused.sentence.isprintable()
    assert len(refused.sentence) < 500


@given(st.text(st.characters()))
@example("[" * 60_000)
@example('{"a":' * 12_000)
@example("-" + "9" * 60_000)
@example('{"x":' + "9" * 5000 + "}")
@example("\ud800")
def test_no_text_raises_anything_but_a_refusal(text: str) -> None:
    read_or_refused(text)


@given(st.binary(max_size=200))
def test_no_base64_raises_anything_but_a_refusal(raw: bytes) -> None:
    read_or_refused(base64.b64encode(raw).decode())


@given(JSON)
def test_no_json_raises_anything_but_a_refusal(value: object) -> None:
    read_or_refused(json.dumps(value))


@given(st.dictionaries(st.sampled_from(sorted(KNOWN)) | TEXT, JSON | st.just("train") | st.just("model-1")))
@example({"resources": {"\x1f": None}})
def test_no_values_of_known_fields_raise_anything_but_a_refusal(body: dict[str, Any]) -> None:
    read_or_refused(json.dumps({"task": "train", "model_container_name": "model-1", **body}))


@given(messages(), st.data())
def test_no_damage_to_a_message_raises_anything_but_a_refusal(body: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(body)
    at = data.draw(st.integers(0, len(text)))
    until = data.draw(st.integers(at, len(text)))
    read_or_refused(text[:at] + data.draw(st.text(max_size=3)) + text[until:])


@given(messages())
def test_what_the_trainer_reads_is_what_was_sent(body: dict[str, Any]) -> None:
    """Kubernetes expands $(NAME) and $$ in a variable's value; what is left is the message."""
    env = {e["name"]: e.get("value") for e in job_of(body)["spec"]["template"]["spec"]["containers"][0]["env"]}
    value = re.sub(r"\$\$|\$\(([^)]*)\)", lambda m: "$" if m[0] == "$$" else "<secret>", env["TRAINING_REQUEST"])
    assert json.loads(value) == body


@given(messages())
def test_the_same_message_makes_the_same_job(body: dict[str, Any]) -> None:
    assert json.dumps(job_of(body)) == json.dumps(job_of(body))


@given(st.text(max_size=50), st.text(max_size=50), st.floats(0, 4e9), st.floats(0, 4e9))
def test_runs_of_different_messages_differ(one: str, other: str, at: float, later: float) -> None:
    assert (run_id(one, at) == run_id(other, at)) == (one == other)
    assert re.fullmatch(r"[0-9]{8}t[0-9]{6}-[0-9a-f]{8}", run_id(one, at))
    if int(at) < int(later):
        assert run_id(one, at) < run_id(one, later), "runs sort by time"


def normal(text: str) -> str:
    """Two half pairs that stand side by side are one character to whoever reads JSON."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def entry_of(original: str, sentence: str = "why", code: str = "NotJson") -> str:
    at = "1970-01-01T00:00:00Z"
    return make_entry(PoisonEntry(code, sentence, "message-1", 2, at, at, original))


@given(st.text(st.characters()), st.text(st.characters(), max_size=100))
def test_any_refused_message_can_be_read_back(original: str, sentence: str) -> None:
    found = parse_entry(entry_of(original, sentence))
    assert normal(found.original) == normal(original)
    assert normal(found.sentence) == normal(sentence)
    assert (found.code, found.message_id, found.delivery_count) == ("NotJson", "message-1", 2)


@settings(max_examples=25)
@given(st.text(st.characters(), min_size=1, max_size=64), st.integers(1, MAX_ENTRY_BYTES), st.integers())
def test_a_refused_message_of_any_size_can_be_read_back(alphabet: str, size: int, seed: int) -> None:
    original = "".join(random.Random(seed).choices(alphabet, k=size))
    while len(original.encode("utf-8", "surrogatepass")) > MAX_ENTRY_BYTES:
        original = original[: len(original) // 2]
    text = entry_of(original)
    assert len(text.encode("utf-8", "surrogatepass")) <= MAX_ENTRY_BYTES
    assert normal(parse_entry(text).original) == normal(original)


@given(JSON | st.text(st.characters()))
def test_anything_on_the_poison_queue_can_be_listed(value: object) -> None:
    text = value if isinstance(value, str) else json.dumps(value)
    assert isinstance(parse_entry(text).original, str)


@given(
    st.fixed_dictionaries(
        {
            "code": JSON,
            "sentence": JSON,
            "message_id": JSON,
            "delivery_count": JSON,
            "queued_at": JSON,
            "poisoned_at": JSON,
        },
        optional={"original": JSON, "original_gzip": JSON},
    )
)
def test_any_envelope_on_the_poison_queue_can_be_listed(value: object) -> None:
    assert isinstance(parse_entry(json.dumps(value)).original, str)
