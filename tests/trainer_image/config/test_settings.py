"""Settings: all problems in one error, flags over environment, no secret in sight."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from trainer_image.config.settings import Purpose, Settings, from_mapping
from trainer_image.errors import ConfigInvalid, UsageError

KEY = "AccountKey=c2VjcmV0LXNlY3JldA=="
POD = {
    "MODEL_CONTAINER": "model-1",
    "DATASET_CONTAINER": "dataset-xyz",
    "RUN_ID": "20261123t081500-1a2b3c4d",
    "LAUNCHED_BY": "dispatcher",
    "TRAINING_REQUEST": '{"task": "train", "model_container_name": "model-1"}',
    "API_BASE_URL": "https://portal.example.com/",
    "API_KEY": "key-of-the-portal",
    "AZURE_STORAGE_CONNECTION_STRING": f"AccountName=a;{KEY}",
    "STATUS_PROGRESS_SECONDS": "30",
    "POD_NAME": "model-1-abcde",
}


def refused(environment: dict[str, str], flags: dict[str, str | None] | None = None, purpose: Purpose = "train") -> str:
    with pytest.raises(UsageError) as error:
        from_mapping(environment, flags, purpose=purpose)
    return error.value.sentence


def test_a_pod_s_environment_is_enough() -> None:
    settings = from_mapping(POD)
    assert settings.dispatched
    assert settings.tracking
    assert settings.run_id == "20261123t081500-1a2b3c4d"
    assert settings.work_dir == Path("/work")
    assert settings.api_base_url == "https://portal.example.com"
    assert settings.termination_path == Path("/dev/termination-log")


def test_the_defaults_are_the_documented_ones() -> None:
    settings = from_mapping(
        {"MODEL_CONTAINER": "model-1", "AZURE_STORAGE_ACCOUNT_URL": "https://a.blob.core.windows.net"}
    )
    assert not settings.dispatched
    assert settings.tracking, "only STATUS_TRACKING=off is off where there is a model to track"
    assert (settings.grace_seconds, settings.progress_seconds, settings.report_retry_seconds) == (30, 30, 120)
    assert (settings.device, settings.auth_method, settings.work_dir) == ("auto", "auto", None)


def test_every_problem_is_named_in_one_error() -> None:
    sentence = refused(
        {
            "MODEL_CONTAINER": "Model_1",
            "DATASET_CONTAINER": "x",
            "API_BASE_URL": "portal",
            "MODEL_API_AUTH_METHOD": "basic",
            "STATUS_TRACKING": "perhaps",
            "STATUS_PROGRESS_SECONDS": "often",
            "GRACE_SECONDS": "-1",
            "RUN_ID": "../x",
            "DEVICE": "tpu",
            "MAX_DATASET_FILES": "many",
            "TRAINING_REQUEST": "[]",
            "LAUNCHED_BY": "me",
            "API_CA_BUNDLE": "/nowhere/ca.pem",
            "AZURE_STORAGE_ACCOUNT_URL": "https://a.blob.core.windows.net/?sig=abc",
            "LOG_LEVEL": "loud",
            "DOWNLOAD_CONNECTIONS": "0",
        }
    )
    for name in (
        "MODEL_CONTAINER", "DATASET_CONTAINER", "API_BASE_URL", "MODEL_API_AUTH_METHOD", "STATUS_TRACKING",
        "STATUS_PROGRESS_SECONDS", "GRACE_SECONDS", "RUN_ID", "DEVICE", "MAX_DATASET_FILES", "TRAINING_REQUEST",
        "LAUNCHED_BY", "API_CA_BUNDLE", "AZURE_STORAGE_ACCOUNT_URL", "LOG_LEVEL", "DOWNLOAD_CONNECTIONS",
    ):  # fmt: skip
        assert name in sentence, name


@pytest.mark.parametrize(
    ("environment", "flags", "named"),
    [
        ({}, {}, "MODEL_CONTAINER is not set"),
        ({"MODEL_CONTAINER": "model-1"}, {}, "AZURE_STORAGE_CONNECTION_STRING"),
        ({}, {"OUT": "/nowhere"}, "--config"),
        ({}, {"OUT": "/nowhere", "CONFIG": "/nowhere.yaml"}, "--config /nowhere.yaml is no file"),
        ({**POD, "TRAINING_REQUEST": '{"model_container_name": "model-2"}'}, {}, "TRAINING_REQUEST is for 'model-2'"),
        ({**POD, "NNODES": "2"}, {}, "MASTER_ADDR is not set"),
        ({**POD, "NNODES": "2", "RUN_ID": ""}, {}, "RUN_ID is not set"),
        ({**POD, "NNODES": "2", "NODE_RANK": "2"}, {}, "NODE_RANK 2 must be less than NNODES, which is 2"),
        ({**POD, "NNODES": "2", "TEAM_PORT": "29500"}, {}, "TEAM_PORT and MASTER_PORT must differ"),
        ({**POD, "NNODES": "2", "MASTER_ADDR": "node..1"}, {}, "MASTER_ADDR 'node..1' must be a host's name"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(environment: dict[str, str], flags: dict[str, str | None], named: str) -> None:
    assert named in refused(environment, flags)


def test_a_missing_folder_of_data_is_named(tmp_path: Path) -> None:
    assert f"--data {tmp_path / 'nothing'} is no folder" in refused(POD, {"DATA": str(tmp_path / "nothing")})
    (tmp_path / "houses.csv").touch()
    told = f"--data {tmp_path / 'houses.csv'} is no folder: put the file into one of its own, and name that"
    assert told in refused(POD, {"DATA": str(tmp_path / "houses.csv")})


def test_a_dispatched_trainer_without_a_key_goes_on() -> None:
    assert from_mapping({**POD, "API_KEY": ""}).api_key is None


def test_what_only_torchrun_says_makes_no_team() -> None:
    """Its variables stand in the environment of whatever it starts."""
    settings = from_mapping({**POD, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29400", "NODE_RANK": "0"})
    assert (settings.nodes, settings.follows) == (1, False)


def test_a_node_that_follows_needs_no_place_for_the_model() -> None:
    team = {"NNODES": "2", "MASTER_ADDR": "10.0.0.1", "RUN_ID": "try-1"}
    assert from_mapping({**team, "NODE_RANK": "1"}).follows
    assert "MODEL_CONTAINER is not set" in refused({**team, "NODE_RANK": "0"})


def test_what_does_not_train_is_no_node_of_a_team() -> None:
    """`validate` in the shell of a node: it reads the whole dataset, and needs neither RUN_ID nor the others."""
    settings = from_mapping({**POD, "NNODES": "4", "NODE_RANK": "3", "RUN_ID": ""}, purpose="read")
    assert (settings.nodes, settings.node, settings.follows) == (1, 0, False)
    assert settings.run_id


def test_flags_win_over_the_environment() -> None:
    settings = from_mapping(POD, {"DATASET_CONTAINER": "another", "DEVICE": "cpu", "RUN_ID": None})
    assert (settings.dataset_container, settings.device, settings.run_id) == ("another", "cpu", POD["RUN_ID"])


def test_tracking_is_off_by_itself_where_there_is_nothing_to_track_and_nowhere(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("task: tabular")
    local = {"DATA": str(tmp_path), "OUT": str(tmp_path / "out"), "CONFIG": str(config)}
    assert not from_mapping({}, local).tracking
    for name in ("MODEL_CONTAINER", "API_BASE_URL", "API_KEY"):
        assert from_mapping({name: POD[name]}, local).tracking, name
        assert not from_mapping({name: POD[name], "STATUS_TRACKING": "off"}, local).tracking


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_KEY", "with a blank"),
        ("API_KEY", "with\x07bell"),
        ("API_KEY", "ключ"),
        ("API_CA_BUNDLE", "/nowhere/ca.pem"),
        ("AZURE_STORAGE_ACCOUNT_URL", "https://a.blob.core.windows.net/?sig=abc"),
    ],
)
def test_a_credential_that_cannot_be_used_is_exit_78_and_named(name: str, value: str) -> None:
    with pytest.raises(ConfigInvalid, match=f"^{name} ") as told:
        from_mapping({**POD, name: value})
    assert told.value.exit_code == 78
    assert name == "API_CA_BUNDLE" or value not in told.value.sentence


def test_two_standalone_runs_have_different_ids() -> None:
    environment = {"MODEL_CONTAINER": "model-1", "AZURE_STORAGE_CONNECTION_STRING": "x"}
    assert from_mapping(environment).run_id != from_mapping(environment).run_id


def test_settings_are_frozen_and_show_no_secret() -> None:
    settings = from_mapping({**POD, "TRAINING_REQUEST": '{"model_container_name": "model-1", "note": "private"}'})
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.run_id = "x"  # type: ignore[misc]
    for shown in (str(settings), repr(settings)):
        assert "key-of-the-portal" not in shown
        assert "c2VjcmV0" not in shown
        assert "private" not in shown
    assert "API_KEY (17 characters)" in str(settings)
    assert {"key-of-the-portal", "c2VjcmV0LXNlY3JldA=="} <= set(settings.secrets)


def test_a_problem_with_a_secret_does_not_show_it() -> None:
    sentence = refused({**POD, "API_BASE_URL": "https://user:hunter2@portal", "DEVICE": "x"})
    assert "hunter2" not in sentence


def test_validating_needs_a_configuration_but_no_place_for_a_model() -> None:
    assert "--config" in refused({}, purpose="read")
    assert isinstance(from_mapping({**POD, "LAUNCHED_BY": ""}, purpose="read"), Settings)
