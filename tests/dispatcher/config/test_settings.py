"""dispatcher.config.settings: every problem in one error, no secret anywhere; config.env.example can be read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dispatcher.config.settings import Settings, SettingsError
from dispatcher.relay.listener import tokens_of
from dispatcher.relay.tokens import RelayTokens
from tests.world.repository import ROOT
from training_common.settings import settings_of

SECRET = "c2VjcmV0LWtleS1vZi10aGUtc3RvcmFnZQ=="
CONNECTION = f"DefaultEndpointsProtocol=https;AccountName=acme;AccountKey={SECRET};EndpointSuffix=core.windows.net"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The least that can be read."""
    template = tmp_path / "job.yaml"
    template.write_text("kind: Job\n")
    return {
        "QUEUE_NAME": "training-requests",
        "AZURE_STORAGE_CONNECTION_STRING": CONNECTION,
        "API_BASE_URL": "https://portal.example.com/",
        "API_KEY": "portal-key-1234",
        "JOB_TEMPLATE": str(template),
    }


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        Settings.read(environ)
    assert all(problem in str(raised.value) for problem in raised.value.problems)
    return raised.value.problems


def test_the_least_that_is_needed_is_enough(environ: dict[str, str]) -> None:
    settings = Settings.read(environ)
    assert settings.queue_name == "training-requests"
    assert settings.queues == ("training-requests",)
    assert settings.api_base_url == "https://portal.example.com"
    assert settings.job_template == Path(environ["JOB_TEMPLATE"])
    assert settings.status_tracking is True
    assert settings.api_ca_bundle is None
    assert settings.priority_classes == ()
    assert (settings.namespace, settings.kueue_queue, settings.trainer_image) == ("", "", "")


def test_without_any_setting_everything_needed_is_named_at_once() -> None:
    found = problems({})
    assert [problem.split()[0] for problem in found] == [
        "JOB_TEMPLATE",
        "QUEUE_NAME",
        "AZURE_STORAGE_CONNECTION_STRING",
        "API_BASE_URL",
    ]


def test_blank_is_as_good_as_missing(environ: dict[str, str]) -> None:
    environ.update(QUEUE_NAME="  ", POLL_MAX_SECONDS=" ", API_CA_BUNDLE="")
    assert [problem.split()[0] for problem in problems(environ)] == ["QUEUE_NAME"]


def test_white_space_around_a_value_is_no_part_of_it(environ: dict[str, str]) -> None:
    environ.update(QUEUE_NAME=" training-requests\n", LOG_LEVEL=" DEBUG ")
    settings = Settings.read(environ)
    assert (settings.queue_name, settings.log_level) == ("training-requests", "debug")


def test_all_malformed_settings_are_named_in_one_error(environ: dict[str, str]) -> None:
    environ.update(QUEUE_NAME="Training", API_BASE_URL="portal", MAX_GPUS="many", JOB_TEMPLATE="/nowhere/job.yaml")
    found = problems(environ)
    assert [problem.split()[0] for problem in found] == ["QUEUE_NAME", "API_BASE_URL", "JOB_TEMPLATE", "MAX_GPUS"]


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("QUEUE_NAME", "q", "3 to 56 characters"),
        ("QUEUE_NAME", "a" * 57, "3 to 56 characters"),
        ("QUEUE_NAME", "training--requests", "single hyphens"),
        ("QUEUE_NAME", "training_requests", "hyphens"),
        ("QUEUE_NAMES", "urgent:4,normal", "or none with one"),
        ("QUEUE_NAMES", "urgent,,normal", "3 to 56 characters"),
        ("QUEUE_NAMES", "urgent:0,normal:1", "the number of urgent is a whole one from 1"),
        ("QUEUE_NAMES", "urgent:high,normal:1", "the number of urgent is a whole one from 1"),
        ("QUEUE_NAMES", "urgent,Normal", "'Normal' must be an Azure queue name"),
        ("QUEUE_NAMES", "urgent,normal,urgent", "names urgent again"),
        ("QUEUE_NAMES", "urgent,urgent-poison", "which is where urgent puts what it refuses"),
        ("QUEUE_NAMES", ",".join(f"queue-{n}" for n in range(17)), "at most 16"),
        ("QUEUE_MAX_ACTIVE_JOBS", "urgent:20,normal", "such as urgent:20,normal:80"),
        ("QUEUE_MAX_ACTIVE_JOBS", "urgent:20,urgent:30", "each once"),
        ("API_BASE_URL", "portal.example.com", "https://portal.example.com"),
        ("API_BASE_URL", "ftp://portal.example.com", "https://portal.example.com"),
        ("API_BASE_URL", "https://", "https://portal.example.com"),
        ("API_BASE_URL", "https://[::1", "https://portal.example.com"),
        ("API_BASE_URL", "https://portal:99999", "https://portal.example.com"),
        ("API_BASE_URL", "https://portal:https", "https://portal.example.com"),
        ("API_BASE_URL", "https://portal example.com", "https://portal.example.com"),
        ("API_BASE_URL", "https://user:word@portal.example.com", "without user, password"),
        ("API_BASE_URL", "https://portal.example.com/?key=1", "without user, password"),
        ("API_BASE_URL", "https://portal.example.com/#top", "without user, password"),
        ("AZURE_STORAGE_QUEUE_URL", "acme", "URL"),
        ("API_KEY", "two words", "printable ASCII"),
        ("API_KEY", "schlüssel", "printable ASCII"),
        ("MODEL_API_AUTH_METHOD", "basic", "auto, x-api-key, bearer"),
        ("STATUS_TRACKING", "true", "on or off"),
        ("STATUS_TRACKING", "0", "on or off"),
        ("NAMESPACE", "Training", "lower-case"),
        ("NAMESPACE", "training-", "lower-case"),
        ("NAMESPACE", "a" * 64, "lower-case"),
        ("KUEUE_QUEUE", "my queue", "LocalQueue"),
        ("GPU_RESOURCE", "gpu", "nvidia.com/gpu"),
        ("TRAINER_IMAGE", "trainer: latest", "white space"),
        ("PRIORITY_CLASSES", "urgent, Batch", "Batch"),
        ("JOB_TEMPLATE", "/nowhere/job.yaml", "not there"),
        ("JOB_TEMPLATE", "/" + "a" * 5000, "cannot be looked at"),
        ("API_CA_BUNDLE", "/", "not there"),
        ("MAX_ACTIVE_JOBS", "0", "from 1 to 100000"),
        ("MAX_ACTIVE_JOBS", "1.5", "whole number"),
        ("MAX_ACTIVE_JOBS", "-1", "whole number"),
        ("MAX_ACTIVE_JOBS", "+1", "whole number"),
        ("MAX_ACTIVE_JOBS", "1_000", "whole number"),
        ("MAX_ACTIVE_JOBS", "١٢", "whole number"),
        ("MAX_ACTIVE_JOBS", "9" * 5000, "whole number"),
        ("MAX_GPUS", "1025", "from 0 to 1024"),
        ("MAX_TIME_LIMIT_SECONDS", "59", "from 60"),
        ("MAX_TIME_LIMIT_SECONDS", "3d", "seconds"),
        ("POLL_MIN_SECONDS", "0", "from 0.05"),
        ("POLL_MIN_SECONDS", "nan", "seconds"),
        ("POLL_MIN_SECONDS", "1e1", "seconds"),
        ("POLL_MIN_SECONDS", "inf", "seconds"),
        ("VISIBILITY_TIMEOUT_SECONDS", "5", "from 10"),
        ("RESYNC_SECONDS", "86401", "86400"),
        ("STATUS_PROGRESS_PER_SECOND", "0", "from 1 to 1000"),
        ("STATUS_PROGRESS_PER_SECOND", "0.5", "whole number"),
        ("HEALTH_PORT", "65536", "65535"),
        ("LOG_LEVEL", "trace", "debug, info, warning, error"),
    ],
)
def test_a_malformed_setting_is_named_with_what_would_be_right(
    environ: dict[str, str], name: str, value: str, right: str
) -> None:
    if name == "AZURE_STORAGE_QUEUE_URL":
        del environ["AZURE_STORAGE_CONNECTION_STRING"]
    if name == "QUEUE_NAMES":
        del environ["QUEUE_NAME"]
    found = problems({**environ, name: value})
    assert len(found) == 1
    assert found[0].startswith(f"{name} ")
    assert right in found[0]
    assert len(found[0]) < 600


@pytest.mark.parametrize(
    ("names", "weights"),
    [
        ("urgent:4, normal:1", [("urgent", 4), ("normal", 1)]),
        ("urgent,normal,nightly", [("urgent", 100), ("normal", 10), ("nightly", 1)]),
        ("only", [("only", 1)]),
    ],
)
def test_several_queues_are_in_the_order_of_priority(
    environ: dict[str, str], names: str, weights: list[tuple[str, int]]
) -> None:
    settings = Settings.read({**environ, "QUEUE_NAME": "", "QUEUE_NAMES": names})
    assert [*settings.queue_weights] == weights
    assert settings.queues == tuple(name for name, _ in weights)
    assert settings.envelope_secret("normal") == "normal-poison portal-key-1234"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"QUEUE_NAMES": "urgent,normal"}, "QUEUE_NAME and QUEUE_NAMES are both set: keep QUEUE_NAME for one queue"),
        ({"QUEUE_MAX_ACTIVE_JOBS": "urgent:3"}, "QUEUE_MAX_ACTIVE_JOBS is set without QUEUE_NAMES"),
        (
            {"QUEUE_NAME": "", "QUEUE_NAMES": "urgent,normal", "QUEUE_MAX_ACTIVE_JOBS": "nightly:3"},
            "QUEUE_MAX_ACTIVE_JOBS names nightly, which QUEUE_NAMES does not",
        ),
    ],
)
def test_queues_that_contradict_each_other_are_one_sentence(
    environ: dict[str, str], changes: dict[str, str], said: str
) -> None:
    [problem] = problems({**environ, **changes})
    assert problem.startswith(said)


def test_no_loop_may_sleep_for_longer_than_the_liveness_probe_allows(environ: dict[str, str]) -> None:
    assert "120" in problems({**environ, "POLL_MAX_SECONDS": "121"})[0]


def test_the_comparison_with_the_api_server_is_no_loops_pause_and_may_be_rare(environ: dict[str, str]) -> None:
    """A watcher wakes every minute, whatever RESYNC_SECONDS says."""
    assert Settings.read({**environ, "RESYNC_SECONDS": "86400"}).resync == 86400.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"AZURE_STORAGE_CONNECTION_STRING": ""}, "AZURE_STORAGE_QUEUE_URL to use azure-identity"),
        ({"AZURE_STORAGE_QUEUE_URL": "https://acme.queue.core.windows.net"}, "both set"),
        ({"API_BASE_URL": ""}, "STATUS_TRACKING=off"),
        ({"POLL_MIN_SECONDS": "3", "POLL_MAX_SECONDS": "2"}, "larger than POLL_MAX_SECONDS"),
        ({"TTL_AFTER_REPORT_SECONDS": "100"}, "VISIBILITY_TIMEOUT_SECONDS"),
    ],
)
def test_settings_that_contradict_each_other_are_told(
    environ: dict[str, str], changes: dict[str, str], said: str
) -> None:
    found = problems({**environ, **changes})
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"STATUS_TRACKING": "OFF", "API_BASE_URL": ""}, "status_tracking", False),
        ({"API_KEY": ""}, "api_key", ""),
        ({"API_BASE_URL": "http://[::1]:8080/base/"}, "api_base_url", "http://[::1]:8080/base"),
        ({"MODEL_API_AUTH_METHOD": "X-API-Key"}, "api_auth_method", "x-api-key"),
        ({"PRIORITY_CLASSES": " urgent , batch.v1,"}, "priority_classes", ("urgent", "batch.v1")),
        ({"UNSCHEDULABLE_LIMIT_SECONDS": "0"}, "unschedulable_limit", 0.0),
        ({"POLL_MIN_SECONDS": "0.05"}, "poll_min", 0.05),
        ({"HEALTH_PORT": "0"}, "health_port", 0),
        ({"GPU_RESOURCE": "amd.com/gpu"}, "gpu_resource", "amd.com/gpu"),
    ],
)
def test_a_valid_setting_is_taken(environ: dict[str, str], changes: dict[str, str], field: str, value: object) -> None:
    assert getattr(Settings.read({**environ, **changes}), field) == value


def test_secrets_are_shown_as_their_length_only(environ: dict[str, str]) -> None:
    settings = Settings.read(environ)
    for shown in (repr(settings), str(settings), f"{settings}"):
        assert SECRET not in shown
        assert "portal-key-1234" not in shown
        assert "API_KEY (15 characters)" in shown
        assert f"AZURE_STORAGE_CONNECTION_STRING ({len(CONNECTION)} characters)" in shown


def test_a_secret_in_any_setting_is_not_repeated_by_the_error(environ: dict[str, str]) -> None:
    """People paste into the wrong line."""
    for env in (setting.env for setting in settings_of(Settings).values()):
        for pasted in (f"{CONNECTION} x", f"https://user:{SECRET}@portal.example.com/ x", f"API_KEY={SECRET} x"):
            assert SECRET not in whatever_is_said({**environ, env: pasted}), env
    assert "portal key" not in whatever_is_said({**environ, "API_KEY": "portal key"})


def whatever_is_said(environ: dict[str, str]) -> str:
    try:
        return repr(Settings.read(environ))
    except SettingsError as error:
        return str(error)


SCOPED = {"CREDENTIALS": "scoped", "RELAY_URL": "http://training-relay.training-system.svc:8082/"}
IDENTITY = {"AZURE_STORAGE_QUEUE_URL": "https://acme.queue.core.windows.net", "AZURE_STORAGE_CONNECTION_STRING": ""}


def test_trainings_with_credentials_of_their_own_find_the_relay(environ: dict[str, str]) -> None:
    assert Settings.read(environ).relay_listens_on == 0
    settings = Settings.read({**environ, **SCOPED})
    assert (settings.relay_listens_on, settings.scoped) == (8082, True)
    assert settings.relay_url == "http://training-relay.training-system.svc:8082"
    assert Settings.read({**environ, "RELAY_PORT": "9000"}).relay_listens_on == 9000


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ({"RELAY_URL": ""}, "RELAY_URL is not set: .* such as http://training-relay"),
        ({"RELAY_PORT": "0"}, "RELAY_PORT is 0: .* no other way to the portal"),
        ({"RELAY_KEY": "short"}, "RELAY_KEY must be keys of 32 to 256"),
        ({"RELAY_KEY": "k" * 32 + ",," + "l" * 32}, "RELAY_KEY must be keys of 32 to 256"),
        ({**IDENTITY, "STATUS_TRACKING": "off", "API_KEY": ""}, "RELAY_KEY is not set: .* signs the trainings' tokens"),
    ],
)
def test_trainings_that_could_not_reach_the_portal_are_told_before_one_starts(
    environ: dict[str, str], changes: dict[str, str], right: str
) -> None:
    more = (
        {"AZURE_STORAGE_BLOB_URL": "https://acme.blob.core.windows.net"} if "AZURE_STORAGE_QUEUE_URL" in changes else {}
    )
    found = problems({**environ, **SCOPED, **more, **changes})
    assert len(found) == 1
    assert re.search(right, found[0])
    assert "kkkk" not in found[0]


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        (
            {"AZURE_STORAGE_CONNECTION_STRING": "BlobEndpoint=https://a;SharedAccessSignature=sig=x"},
            "has no AccountKey",
        ),
        ({**IDENTITY, "AZURE_STORAGE_QUEUE_URL": "https://queues.acme.example"}, "AZURE_STORAGE_BLOB_URL is not set"),
    ],
)
def test_signatures_that_could_not_be_made_are_told_before_one_is_needed(
    environ: dict[str, str], changes: dict[str, str], right: str
) -> None:
    (found,) = problems({**environ, **SCOPED, **changes})
    assert right in found
    Settings.read({**environ, **SCOPED, **changes, "CREDENTIALS": "shared"})


def test_the_blobs_of_an_identity_are_at_the_same_account_as_its_queues(environ: dict[str, str]) -> None:
    assert Settings.read({**environ, **SCOPED, **IDENTITY}).blob_url == "https://acme.blob.core.windows.net"
    other = {"AZURE_STORAGE_BLOB_URL": "https://acme.privatelink.example/"}
    assert Settings.read({**environ, **SCOPED, **IDENTITY, **other}).blob_url == "https://acme.privatelink.example"


def test_without_tracking_no_relay_is_asked_for(environ: dict[str, str]) -> None:
    Settings.read({**environ, "CREDENTIALS": "scoped", "STATUS_TRACKING": "off", "RELAY_PORT": "0"})


def test_the_keys_of_the_relay_are_secrets_and_the_first_signs(environ: dict[str, str]) -> None:
    settings = Settings.read({**environ, **SCOPED, "RELAY_KEY": "n" * 32 + " , " + "o" * 32})
    assert settings.relay_keys == ("n" * 32, "o" * 32)
    assert "nnnn" not in repr(settings)
    assert tokens_of(settings).check(RelayTokens(["o" * 32]).make("1", "run-1")) is not None
    assert RelayTokens(["n" * 32]).check(tokens_of(settings).make("1", "run-1")) is not None


def test_settings_cannot_be_changed(environ: dict[str, str]) -> None:
    settings: Any = Settings.read(environ)
    with pytest.raises(AttributeError):
        settings.max_gpus = 99


# config.env.example

EXAMPLE = (ROOT / "config.env.example").read_text(encoding="utf-8")
_LINE = re.compile(r"^(?P<off>#)?(?P<name>[A-Z][A-Z0-9_]*)=(?P<value>.*)$")


def the_example() -> dict[str, tuple[bool, str]]:
    """Name → (set, value). tests/docs/test_settings.py holds the file equal to what the fields say."""
    found = (_LINE.match(line) for line in EXAMPLE.splitlines())
    return {match["name"]: (not match["off"], match["value"]) for match in found if match}


def test_the_example_is_a_configuration_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # JOB_TEMPLATE is relative to the project
    Settings.read({name: value for name, (is_set, value) in the_example().items() if is_set})


def test_the_defaults_are_those_that_the_example_shows(environ: dict[str, str]) -> None:
    shown = {name: value for name, (is_set, value) in the_example().items() if not is_set}
    assert Settings.read({**shown, **environ}) == Settings.read(environ)


@pytest.mark.parametrize(
    "url", ["https://host/a/../b", "http://exa$mple.com", "http://host:0", "http://１２７.0.0.1", "http://host/päth"]
)
def test_an_address_that_the_client_refuses_is_a_wrong_setting(url: str, environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="1 setting is missing or wrong:\n  API_BASE_URL must be a URL"):
        Settings.read({**environ, "API_BASE_URL": url})
