"""dispatcher.launch.request: what a message may say, and what is refused with which code."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from dispatcher.launch.request import MAX_BYTES, Bounds, MalformedRequest, TrainingRequest, decode

BOUNDS = Bounds(max_gpus=4, max_time_limit=3600.0, priority_classes=("urgent", "batch"))
SMALLEST = {"task": "train", "model_container_name": "model-123"}


def message(**fields: Any) -> str:
    return json.dumps({**SMALLEST, **fields})


def encoded(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()


def accepted(text: str) -> TrainingRequest:
    return decode(text, BOUNDS)


def refused(text: str) -> MalformedRequest:
    with pytest.raises(MalformedRequest) as raised:
        decode(text, BOUNDS)
    error = raised.value
    assert error.code.isalnum(), "a code is a word for metrics"
    assert str(error) == error.sentence
    assert len(error.sentence) < 400, "a message must not fill the log"
    assert error.sentence.isprintable()
    return error


def test_the_documented_message_is_read() -> None:
    text = (
        '{"task": "train", "model_container_name": "model-123", "dataset_container_name": "dataset-xyz", '
        '"resources": {"gpus": 2}, "priority": "urgent", "time_limit_seconds": 600, "note": ["kept", {"as": null}]}'
    )
    request = accepted(text)
    assert (request.model_id, request.model_container) == ("123", "model-123")
    assert request.dataset_container == "dataset-xyz"
    assert (request.gpus, request.priority, request.time_limit) == (2, "urgent", 600)
    assert request.body == json.loads(text)
    assert json.loads(request.to_json()) == json.loads(text)


def test_the_smallest_message_leaves_the_rest_to_the_operator() -> None:
    request = accepted(message())
    assert request.dataset_container is None
    assert (request.gpus, request.priority, request.time_limit) == (None, None, None)


@pytest.mark.parametrize("field", ["dataset_container_name", "resources", "priority", "time_limit_seconds"])
def test_null_is_as_good_as_left_out(field: str) -> None:
    assert accepted(message(**{field: None})).body[field] is None


PLAIN = message(dataset_container_name="dataset-xyz", note="größer ☃")


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        f"  \r\n{PLAIN}\n",
        f"\ufeff{PLAIN}",
        f"\ufeff \n{PLAIN}",
        f" \ufeff{PLAIN}",
        encoded(PLAIN),
        f" {encoded(PLAIN)}\n",
        f"\ufeff{encoded(PLAIN)}",
        "\r\n".join(encoded(PLAIN)[i : i + 76] for i in range(0, len(encoded(PLAIN)), 76)),
        encoded(f"\ufeff{PLAIN}"),
        encoded(f"\ufeff\r\n{PLAIN}\r\n"),
        encoded(f"  {PLAIN}"),
    ],
    ids=[
        "plain",
        "white space around",
        "byte order mark",
        "byte order mark, then white space",
        "white space, then byte order mark",
        "base64",
        "base64, white space around",
        "base64, byte order mark before",
        "base64 in lines",
        "base64 of a byte order mark",
        "base64 of byte order mark and lines",
        "base64 of white space",
    ],
)
def test_the_same_message_is_read_however_it_was_sent(text: str) -> None:
    assert accepted(text).body == json.loads(PLAIN)


NEEDS_URL_SAFE = message(note="???>>>")

NOT_JSON = {
    "empty": "",
    "white space": " \n\t",
    "only a byte order mark": "\ufeff",
    "words": "train my model please",
    "cut off": message()[:-1],
    "two objects": message() + message(),
    "a comma too much": '{"task": "train",}',
    "single quotes": "{'task': 'train'}",
    "bare word": "undefined",
    "base64 of words": encoded("train my model please"),
    "base64 of a cut-off object": encoded(message()[:-1]),
    "base64 of base64": encoded(encoded(message())),
    "base64 without its padding": encoded(message(n="x")).rstrip("="),
    "url-safe base64": base64.urlsafe_b64encode(NEEDS_URL_SAFE.encode()).decode(),
    "base64 of UTF-16": base64.b64encode(message().encode("utf-16")).decode(),
    "base64 of bytes": base64.b64encode(bytes(range(256))).decode(),
    "letters beyond ASCII": "トレーニング",
    "NaN": '{"task": "train", "x": NaN}',
    "Infinity": '{"task": "train", "x": [-Infinity]}',
    "a number that becomes infinite": '{"task": "train", "model_container_name": "model-1", "x": {"y": [1e999]}}',
    "a number of 5000 digits": '{"task": "train", "x": ' + "9" * 5000 + "}",
    "a field twice": '{"task": "train", "task": "train", "model_container_name": "model-1"}',
    "a field twice, deep inside": '{"task": "train", "model_container_name": "model-1", "x": [{"a": 1, "a": 2}]}',
    "nested 33 levels": '{"task": "train", "model_container_name": "model-1", "x": ' + "[" * 33 + "]" * 33 + "}",
    "nested 30000 levels": '{"x": ' + "[" * 30000 + "]" * 30000 + "}",
    "nothing but opening brackets": "[" * 60000,
    "half a Unicode pair": '{"task": "train", "model_container_name": "model-1", "x": "\\ud83d"}',
    "half a Unicode pair in a key": '{"task": "train", "model_container_name": "model-1", "\\udc00": 1}',
    "half a Unicode pair, raw": '{"task": "train", "model_container_name": "model-1", "x": "\ud83d"}',
    "a NUL": '{"task": "train", "model_container_name": "model-1", "x": "a\\u0000b"}',
}


def test_base64_without_padding_really_lacks_some() -> None:
    assert encoded(message(n="x")).endswith("=")


def test_the_url_safe_text_really_differs() -> None:
    assert set("-_") & set(NOT_JSON["url-safe base64"])


@pytest.mark.parametrize("text", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_no_json_is_refused_as_such(text: str) -> None:
    assert refused(text).code == "NotJson"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("[]", "an array"),
        ('["train"]', "an array"),
        ('"train"', "a text"),
        ("1234", "a number"),
        ("12.5", "a number"),
        ("true", "true or false"),
        ("null", "null"),
        (encoded(f"[{message()}]"), "an array"),
    ],
)
def test_json_that_is_no_object_is_named(text: str, kind: str) -> None:
    error = refused(text)
    assert error.code == "NotAnObject"
    assert kind in error.sentence


def test_a_message_over_size_is_refused_before_it_is_read() -> None:
    assert refused('{"x": "' + "a" * MAX_BYTES).code == "MessageTooLarge"


def test_the_size_counts_bytes_not_characters() -> None:
    assert refused(message() + "é" * (MAX_BYTES // 2)).code == "MessageTooLarge"


def test_a_message_of_64_kib_is_read() -> None:
    padding = MAX_BYTES - len(message(x=""))
    text = message(x="a" * padding)
    assert len(text) == MAX_BYTES
    assert accepted(text).body["x"] == "a" * padding


def test_a_message_that_outgrows_a_variable_when_written_out_is_refused() -> None:
    """1e15 is written back as 1000000000000000.0."""
    text = '{"task":"train","model_container_name":"model-1","x":[' + ",".join(["1e15"] * 12000) + "]}"
    assert len(text) < MAX_BYTES
    assert refused(text).code == "MessageTooLarge"


@pytest.mark.parametrize("field", ["task", "model_container_name"])
@pytest.mark.parametrize("absent", [True, False], ids=["left out", "null"])
def test_a_missing_field_is_named(field: str, absent: bool) -> None:
    body: dict[str, Any] = dict(SMALLEST)
    if absent:
        del body[field]
    else:
        body[field] = None
    error = refused(json.dumps(body))
    assert error.code == "MissingField"
    assert f'"{field}"' in error.sentence


@pytest.mark.parametrize("task", ["evaluate", "Train", "train ", "", 1, True, ["train"], {"train": 1}, 1.0])
def test_another_task_is_refused(task: object) -> None:
    error = refused(message(task=task))
    assert error.code == "UnknownTask"
    assert '"train"' in error.sentence


BAD_MODEL_NAMES: list[object] = [
    "model123",
    "training-1",
    "model-",
    "model",
    "",
    "model-A",
    "Model-1",
    "MODEL-1",
    "model- 7 ",
    "model-1_0",
    "model-" + "9" * 5000,
    "model-1\n",
    "model-1 ",
    " model-1",
    "model-١",
    "model-½",
    "model--1",
    "model-1-",
    "model-_1",
    "model-a.b",
    "model-" + "a" * 58,
    "model-../x",
    "model-%2e%2e",
    "model-1?x=1",
    "model-1#",
    "model-1\u200b",
    123,
    1.5,
    True,
    ["model-1"],
    {"name": "model-1"},
]


@pytest.mark.parametrize("name", BAD_MODEL_NAMES, ids=ascii)
def test_a_bad_model_container_name_has_its_own_code(name: object) -> None:
    assert refused(message(model_container_name=name)).code == "InvalidContainerName"


@pytest.mark.parametrize("model_id", ["2", 2, "01", True, ["1"]])
def test_a_model_id_that_is_not_the_containers_is_refused(model_id: object) -> None:
    assert refused(message(model_container_name="model-1", model_id=model_id)).code == "InvalidField"


@pytest.mark.parametrize("fresh", ["true", 1, []])
def test_a_fresh_that_is_neither_true_nor_false_is_refused(fresh: object) -> None:
    error = refused(message(fresh=fresh))
    assert (error.code, '"fresh"' in error.sentence) == ("InvalidField", True)
    assert accepted(message(fresh=True)).body["fresh"] is True


@pytest.mark.parametrize("model_id", ["1", 1, None])
def test_a_model_id_that_is_the_containers_is_taken(model_id: object) -> None:
    assert accepted(message(model_container_name="model-1", model_id=model_id)).model_id == "1"


def test_a_model_container_name_of_63_characters_is_taken() -> None:
    name = "model-" + "a" * 57
    assert accepted(message(model_container_name=name)).model_id == "a" * 57


@pytest.mark.parametrize(
    "name", ["", "ab", "Dataset", "data_set", "data--set", "-data", "data-", "a" * 64, "../x", 5, False, ["a"], {}]
)
def test_a_bad_dataset_container_name_is_refused(name: object) -> None:
    error = refused(message(dataset_container_name=name))
    assert error.code == "InvalidField"
    assert '"dataset_container_name"' in error.sentence


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("resources", 1, '"resources"'),
        ("resources", [], '"resources"'),
        ("resources", "2", '"resources"'),
        ("resources", {"cpu": 2}, "resources.cpu"),
        ("resources", {"gpus": 1, "memory": "1Ti"}, "resources.memory"),
        ("resources", {"a\nb\x1f": 1}, "resources.a\\nb"),
        ("resources", {"x" * 60_000: 1}, "resources.xxx"),
        ("resources", {"gpus": -1}, "resources.gpus"),
        ("resources", {"gpus": 5}, "MAX_GPUS"),
        ("resources", {"gpus": 1.0}, "resources.gpus"),
        ("resources", {"gpus": True}, "resources.gpus"),
        ("resources", {"gpus": "2"}, "resources.gpus"),
        ("resources", {"gpus": [2]}, "resources.gpus"),
        ("resources", {"gpus": 10**400}, "resources.gpus"),
        ("time_limit_seconds", 0, "time_limit_seconds"),
        ("time_limit_seconds", -1, "time_limit_seconds"),
        ("time_limit_seconds", 3601, "MAX_TIME_LIMIT_SECONDS"),
        ("time_limit_seconds", 60.0, "time_limit_seconds"),
        ("time_limit_seconds", False, "time_limit_seconds"),
        ("time_limit_seconds", "60", "time_limit_seconds"),
        ("time_limit_seconds", {}, "time_limit_seconds"),
        ("priority", "system-node-critical", "urgent, batch"),
        ("priority", "", "priority"),
        ("priority", 1, "priority"),
        ("priority", ["urgent"], "priority"),
        ("priority", {"urgent": 1}, "priority"),
    ],
)
def test_a_wish_beyond_the_operators_limits_names_field_and_limit(field: str, value: object, named: str) -> None:
    error = refused(message(**{field: value}))
    assert error.code == "InvalidField"
    assert named in error.sentence


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"resources": {}}, (None, None, None)),
        ({"resources": {"gpus": None}}, (None, None, None)),
        ({"resources": {"gpus": 0}}, (0, None, None)),
        ({"resources": {"gpus": 4}}, (4, None, None)),
        ({"priority": "batch"}, (None, "batch", None)),
        ({"time_limit_seconds": 1}, (None, None, 1)),
        ({"time_limit_seconds": 3600}, (None, None, 3600)),
    ],
)
def test_wishes_within_the_limits_are_taken(fields: dict[str, Any], expected: tuple[Any, ...]) -> None:
    request = accepted(message(**fields))
    assert (request.gpus, request.priority, request.time_limit) == expected


SEVERAL = Bounds(max_gpus=4, max_time_limit=3600.0, max_nodes=32)


@pytest.mark.parametrize("nodes", [None, 1, 2, 32])
def test_nodes_within_the_limit_are_taken(nodes: int | None) -> None:
    request = decode(message(resources={"nodes": nodes, "gpus": 4}), SEVERAL)
    assert (request.nodes, request.gpus) == (nodes, 4)
    assert decode(message(), SEVERAL).nodes is None


@pytest.mark.parametrize("bounds", [BOUNDS, SEVERAL])
@pytest.mark.parametrize("nodes", [0, -1, 33, 1.0, 2.0, True, False, "2", [2], {}, 10**400, "x" * 5000])
def test_nodes_beyond_the_limit_or_of_no_number_are_refused(bounds: Bounds, nodes: object) -> None:
    with pytest.raises(MalformedRequest, match=r'The field "resources\.nodes" is .*MAX_NODES') as raised:
        decode(message(resources={"nodes": nodes}), bounds)
    assert raised.value.code == "InvalidField"
    assert len(raised.value.sentence) < 400


@pytest.mark.parametrize("nodes", [None, 1])
def test_where_several_nodes_are_off_one_may_be_said(nodes: int | None) -> None:
    assert accepted(message(resources={"nodes": nodes})).nodes == nodes
    assert "are off (the operator's MAX_NODES)" in refused(message(resources={"nodes": 2})).sentence


@pytest.mark.parametrize(("length", "nodes"), [(61, 10), (60, 11), (60, 32), (63, 1), (63, None)])
def test_a_name_is_as_long_as_the_name_of_its_last_pod_may_be(length: int, nodes: int | None) -> None:
    """The API server takes no Indexed Job whose last pod would have a host name of more than 63 characters."""
    fits, longer = (f"model-{'x' * (size - 6)}" for size in (length, length + 1))
    assert decode(message(model_container_name=fits, resources={"nodes": nodes}), SEVERAL).nodes == nodes
    with pytest.raises(MalformedRequest) as raised:
        decode(message(model_container_name=longer, resources={"nodes": nodes}), SEVERAL)
    if length < 63:
        assert raised.value.code == "InvalidField"
        assert f"has {length + 1} characters; on {nodes} nodes at most {length}" in raised.value.sentence


def test_without_priority_classes_no_priority_is_taken() -> None:
    with pytest.raises(MalformedRequest, match="the operator allows: none"):
        decode(message(priority="urgent"), Bounds(8, 3600.0))


def test_a_long_value_is_not_repeated_in_full() -> None:
    error = refused(message(task="x" * 5000))
    assert len(error.sentence) < 200


def test_numbers_keep_their_value() -> None:
    text = '{"task":"train","model_container_name":"model-1","x":[1,-0.0,1.5,1e22,123456789012345678901234567890]}'
    kept = accepted(accepted(text).to_json())
    assert kept.body["x"] == [1, -0.0, 1.5, 1e22, 123456789012345678901234567890]
    assert type(kept.body["x"][0]) is int


def test_with_scoped_credentials_another_models_container_is_no_dataset() -> None:
    scoped = Bounds(max_gpus=4, max_time_limit=3600.0, own_datasets=True)
    for dataset in ("dataset-xyz", "model-123", "models", None):
        assert decode(message(dataset_container_name=dataset), scoped).dataset_container == dataset
    for dataset in ("model-124", "model-12", "model-1234"):
        with pytest.raises(MalformedRequest, match="is another model's container") as raised:
            decode(message(dataset_container_name=dataset), scoped)
        assert raised.value.code == "InvalidField"
        assert accepted(message(dataset_container_name=dataset)).dataset_container == dataset
