"""config.yaml: what is refused is refused with every reason; what is accepted means what it says."""

from __future__ import annotations

import contextlib
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trainer_image.config import strict_yaml
from trainer_image.config.model_config import (
    Config,
    ConfigProblems,
    format_duration,
    identity,
    json_schema,
    parse_config,
    run_key,
)
from trainer_image.errors import ConfigInvalid

SMALLEST = "task: tabular\ndata: {target: price}\n"


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(ConfigInvalid) as refused:
        parse_config(text if isinstance(text, bytes) else text.encode())
    assert isinstance(refused.value, ConfigProblems)
    assert all(p.startswith("Invalid configuration: ") for p in refused.value.problems)
    assert refused.value.sentence == "; ".join(refused.value.problems)
    return [p.removeprefix("Invalid configuration: ") for p in refused.value.problems]


def test_the_smallest_file_gets_the_documented_defaults() -> None:
    config = parse_config(SMALLEST.encode())
    assert (config.version, config.model.preset, config.init.from_) == (1, "auto", "none")
    assert (config.train.time_budget, config.checkpoint.every, config.checkpoint.keep) == (1800.0, 300.0, 2)
    assert parse_config(b"task: image_classification").data.target is None


def test_the_documented_example_is_valid() -> None:
    config = parse_config(b"""
version: 1
task: tabular        # tabular | image_classification | text_classification | language_model
dataset: dataset-xyz
data: {target: price, drop: [id], types: {zip: category}, group: customer_id}
model: {preset: auto}
train: {time_budget: 30m, epochs: auto, batch_size: auto, lr: auto, precision: auto, compile: auto,
        seed: 0, metric: auto}
checkpoint: {every: 5m, keep: 2}
init: {from: none}
""")
    assert config.data.types == {"zip": "category"}


def test_a_scientific_number_without_a_dot_is_a_number() -> None:
    assert parse_config(b"task: tabular\ndata: {target: a}\ntrain: {lr: 1e-3}").train.lr == 1e-3


@pytest.mark.parametrize("word", ["no", "on", "yes", "2024-01-01", "12:30:00", "0x10", "1_000"])
def test_a_column_name_is_not_turned_into_something_else(word: str) -> None:
    assert parse_config(f"task: tabular\ndata: {{target: {word}}}".encode()).data.target == word


def test_all_problems_are_told_at_once() -> None:
    told = problems(
        "task: tabular\nversion: 2\ndata: {targt: a}\ntrain: {lr: fast, seed: -1, time_budget: 30}\ninit: {from: last}"
    )
    assert [p.split(":")[0] for p in told] == [
        "version", "data.targt", "train.time_budget", "train.lr", "train.seed", "init.from", "data.target",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "path", "why"),
    [
        ("data: {targt: a}", "data.targt", "did you mean data.target?"),
        ("epochs: 3", "epochs", "did you mean train.epochs?"),
        ("train: {learning_rate: 1}", "train.learning_rate", "known here: time_budget, epochs"),
        ("modle: {}", "modle", "did you mean model?"),
        ("custom: {entry_point: a:B}", "custom", "belongs to task custom, not to tabular"),
        ("custom: {entry_point: a}", "custom.entry_point", "must be module:Class"),
        ("custom: {entry_point: 'a.b:C()'}", "custom.entry_point", "must be module:Class"),
        ("custom: {params: {a: [1, .inf]}}", "custom.params", "not finite"),
        ("command: {argv: [python]}", "command", "belongs to task command, not to tabular"),
        ("command: {argv: python train.py}", "command.argv", "must be a list"),
        ("command: {argv: [python, 3]}", "command.argv.1", "numbers that are meant as text need quotes"),
        ('command: {argv: ["a\\0"]}', "command.argv.0", "NUL"),
        ("train: {metric: acuracy}", "train.metric", "must be auto or one of accuracy, balanced_accuracy"),
        ("train: {metric: bits_per_byte}", "train.metric", "or one of accuracy, balanced_accuracy"),
        ("train: {metric: 'A B'}", "train.metric", "a name of lower-case letters"),
        ("train: {epochs: 0}", "train.epochs", "auto or a whole number from 1"),
        ("train: {epochs: true}", "train.epochs", "auto or a whole number from 1"),
        ("train: {batch_size: 1.5}", "train.batch_size", "auto or a whole number from 1"),
        ("train: {lr: 0}", "train.lr", "a number above 0"),
        ("train: {lr: .nan}", "train.lr", "a number above 0"),
        ("train: {compile: yes}", "train.compile", "auto, true or false"),
        ("train: {precision: fp16}", "train.precision", "auto, fp32 or bf16; it is 'fp16'"),
        ("train: {time_budget: 0s}", "train.time_budget", "a duration with its unit"),
        ("train: {time_budget: 1h30m}", "train.time_budget", "a duration with its unit"),
        ("train: {seed: 1.0}", "train.seed", "a whole number"),
        ("train: 3", "train", "must hold keys and values"),
        ("checkpoint: {keep: 0}", "checkpoint.keep", "at least 1"),
        ("dataset: Dataset_1", "dataset", "a container's name"),
        ("dataset: a--b", "dataset", "a container's name"),
        ("data: {drop: id}", "data.drop", "must be a list"),
        ("data: {drop: [1.5]}", "data.drop.0", "numbers that are meant as text need quotes"),
        ("data: {types: {zip: texts}}", "data.types.zip", "category, number, date or text"),
        ("data: {target: ''}", "data.target", "must not be empty"),
        ("data: {target: }", "data.target", "must name the column"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place_and_what_would_be_right(text: str, path: str, why: str) -> None:
    told = [p for p in problems(f"task: tabular\n{text}") if p.startswith(f"{path}: ")]
    assert any(why in p for p in told), told


def test_a_task_that_is_not_known_is_told_the_known_ones() -> None:
    assert problems("task: regression") == [
        "task: must be tabular, image_classification, text_classification, language_model, custom or command;"
        " it is 'regression'"
    ]


@pytest.mark.parametrize(("task", "key"), [("custom", "custom.entry_point"), ("command", "command.argv")])
@pytest.mark.parametrize("section", ["", "{section}: {{}}\n", "{section}:\n"])
def test_a_task_of_one_s_own_needs_its_code(task: str, key: str, section: str) -> None:
    told = problems(f"task: {task}\n" + section.format(section=task))
    assert any(problem.startswith(f"{key}: is required for task {task}: ") for problem in told)


def test_a_custom_task_has_its_own_columns_figures_and_parameters() -> None:
    config = parse_config(b"""
task: custom
data: {target: y, text: t, drop: [a]}
train: {metric: seasonal_error}
custom: {entry_point: "my_package.train:MyTask", params: {horizon: 12, deep: {list: [1, text]}}}
""")
    assert config.custom.params == {"horizon": 12, "deep": {"list": [1, "text"]}}
    assert config.train.metric == "seasonal_error"
    assert "command" not in config.resolved()
    assert parse_config(config.resolved_yaml().encode()) == config


def test_a_command_is_a_list_that_no_shell_reads() -> None:
    config = parse_config(b'task: command\ncommand: {argv: [python, train.py, --lr, "3e-4", "; rm *"]}')
    assert config.command.argv == ["python", "train.py", "--lr", "3e-4", "; rm *"]
    assert config.resolved()["command"] == {"argv": config.command.argv, "shares": []}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "task: tabular\ndata: {target: y, text: a}",
            "data.text: belongs to task text_classification or language_model",
        ),
        ("task: image_classification\ndata: {drop: [a]}", "data.drop: belongs to task tabular"),
        ("task: text_classification\ndata: {types: {a: number}}", "data.types: belongs to task tabular"),
        ("task: language_model\ndata: {target: y}", "data.target: belongs to task tabular or image_classification or"),
    ],
)
def test_a_key_of_another_task_is_refused(text: str, told: str) -> None:
    [problem] = problems(text)
    assert problem.startswith(told)


@pytest.mark.parametrize(
    "text",
    [
        "task: tabular\ndata: {target: y, group: y}",
        "task: image_classification\ndata: {group: label}",
        "task: text_classification\ndata: {target: kind, group: kind}",
    ],
)
def test_a_group_that_is_the_target_is_told_before_the_data_is_read(text: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith("data.group: is the target '")


def test_the_target_is_never_guessed_and_never_dropped() -> None:
    assert problems("task: tabular") == [
        "data.target: is required for task tabular: name the column to predict; it is never guessed"
    ]
    assert problems("task: tabular\ndata: {target: a, drop: [a]}") == ["data.drop: contains the target 'a'"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: &x 1\nb: *x", "anchors"),
        ("b: *x", "aliases"),
        ("a: 1\na: 2", "line 2, column 1: the key 'a' stands there twice"),
        ("train: {lr: 1, lr: 2}", "'lr' stands there twice"),
        ("a: !!python/object/apply:os.system [id]", "tags"),
        ("a: !mine 1", "tags"),
        ("task: a\n---\ntask: b", "second document"),
        ("[" * 30 + "]" * 30, "nested deeper"),
        ("{a: " * 10_000, "nested deeper"),
        ("? [a, b]\n: 1", "a key must be plain text"),
        ("task: [tabular", "line 1"),
        ("\ttask: tabular", "line 1"),
        ("just text", "must hold keys and values"),
        ("", "must hold keys and values"),
        (b"task: \xff", "byte 6 is not UTF-8"),
        (b"task: \x00", "special characters"),
        ("a: " + "9" * 5000, "a number in it cannot be read"),
        ("x" * (strict_yaml.MAX_BYTES + 1), "at most 262144"),
    ],
)  # fmt: skip
def test_yaml_that_surprises_or_attacks_is_refused(text: str | bytes, why: str) -> None:
    (told,) = problems(text)
    assert told.startswith("config.yaml: ")
    assert why in told


def test_a_merge_key_is_an_unknown_key() -> None:
    assert problems("task: tabular\ndata: {target: a}\n'<<': {version: 1}")[0].startswith("<<: unknown key")


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_bring_a_traceback(content: bytes) -> None:
    with contextlib.suppress(ConfigInvalid):
        parse_config(content)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda below: (
            st.lists(below, max_size=3)
            | st.dictionaries(
                st.sampled_from(["task", "data", "train", "lr", "target", "types", "x"]), below, max_size=4
            )
        ),
        max_leaves=12,
    )
)
def test_no_structure_brings_a_traceback(value: object) -> None:
    text = json.dumps({"task": "tabular", "train": value, "data": value}).encode()
    with pytest.raises(ConfigInvalid):
        parse_config(text)


def test_the_resolved_configuration_reads_back_as_itself() -> None:
    config = parse_config(b"task: tabular\ndata: {target: 'no', types: {zip: category}}\ntrain: {time_budget: 90s}")
    again = yaml.safe_load(config.resolved_yaml())
    assert again["train"]["time_budget"] == "90s"
    assert parse_config(config.resolved_yaml().encode()) == config


@given(st.integers(1, 10_000_000))
def test_durations_are_written_as_they_are_read(seconds: int) -> None:
    text = SMALLEST + f"train: {{time_budget: {format_duration(float(seconds))}}}"
    assert parse_config(text.encode()).train.time_budget == seconds


def test_the_run_key_follows_what_decides_the_training() -> None:
    def key(text: str, fingerprint: str = "f", initial: str | None = None, **code: str) -> str:
        return run_key(identity(parse_config(text.encode()), fingerprint, initial, code))

    same = key(SMALLEST)
    assert key(SMALLEST + "train: {seed: 0}") == same, "a default that is written out changes nothing"
    assert key(SMALLEST + "checkpoint: {every: 1m}") == same
    assert key(SMALLEST + "report: {examples: false}") == same, "another report of the same training"
    assert key(SMALLEST + "publish: if_better") == same, "what becomes of the model is no part of how it is trained"
    assert key(SMALLEST + "dataset: dataset-xyz") == same, "the fingerprint says which data it is"
    others = [
        key(SMALLEST + "train: {seed: 1}"),
        key(SMALLEST, "another"),
        key(SMALLEST, initial="m"),
        key(SMALLEST, trainer="0.1"),
        key(SMALLEST, trainer="0.2"),
        key("task: tabular\ndata: {target: cost}"),
        key("task: command\ncommand: {argv: [a]}"),
        key("task: command\ncommand: {argv: [a, b]}"),
        key("task: command\ncommand: {argv: [a, b], shares: [x]}"),
        key("task: custom\ncustom: {entry_point: a:B}"),
        key("task: custom\ncustom: {entry_point: a:B, params: {x: 1}}"),
    ]
    assert len({same, *others}) == 1 + len(others)


def test_a_key_that_came_later_leaves_old_checkpoints_of_programs_theirs() -> None:
    config = parse_config(b"task: command\ncommand: {argv: [a]}")
    known = "c7e5d69755bef2b6a70d6adee454c774be71df9a26ee6392c2129e4cd4e52e09"
    assert run_key(identity(config, "f", None)) == known


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            SMALLEST + "init: {from: last}",
            "init.from: must be none, latest, or a run's id like 20261123t081500-1a2b3c4d",
        ),
        (SMALLEST + "init: {from: ../run-1}", "init.from: must be none, latest, or a run's id"),
        (SMALLEST + "publish: better", "publish: "),
        (
            "task: command\ncommand: {argv: [a]}\npublish: if_better",
            "publish: if_better is for models that the trainer",
        ),
    ],
)
def test_what_is_no_run_and_no_way_to_publish_is_told(text: str, told: str) -> None:
    assert problems(text)[0].startswith(told)


def test_a_warm_start_may_name_a_run() -> None:
    config = parse_config((SMALLEST + "init: {from: 20261123t081500-1a2b3c4d}").encode())
    assert config.init.from_ == "20261123t081500-1a2b3c4d"


def test_the_schema_is_json_and_names_every_key() -> None:
    schema = json.loads(json.dumps(json_schema()))
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {
        "version", "task", "dataset", "data", "model", "train", "checkpoint", "init", "publish", "report",
        "custom", "command",
    }  # fmt: skip
    assert schema["$defs"]["TrainConfig"]["properties"]["time_budget"]["default"] == "30m"
    assert set(schema["$defs"]["InitConfig"]["properties"]) == {"from"}
    assert Config.model_fields.keys() >= {"task"}
