"""Wrong files, arguments and addresses at the command line: one sentence, the documented code, no traceback."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click.testing
import pytest
from prometheus_client import CollectorRegistry

from dispatcher.cli import status, support
from dispatcher.cli.main import main
from dispatcher.config.settings import Settings, SettingsError
from dispatcher.web.health import HealthServer, Heartbeats
from portal_client.client import PortalClient
from tests.world.repository import JOB_TEMPLATE

MESSAGE = json.dumps({"task": "train", "model_container_name": "model-1"})
SETTINGS = {
    "QUEUE_NAME": "training-requests",
    "AZURE_STORAGE_CONNECTION_STRING": "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=a2V5",
    "API_BASE_URL": "http://127.0.0.1:9",
    "API_KEY": "key-0123456789abcdef",
    "JOB_TEMPLATE": str(JOB_TEMPLATE),
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        wanted: dict[str, str | None] = {**dict.fromkeys(SETTINGS), "DISPATCHER_CONFIG": None, **(env or {})}
        result = click.testing.CliRunner().invoke(main, arguments, env=wanted)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    return invoke


def test_a_settings_file_that_is_named_must_be_there(run: Any) -> None:
    assert run("check", env={"DISPATCHER_CONFIG": "gone.env"}) == (
        2,
        "dispatcher: DISPATCHER_CONFIG names a file that is not there: gone.env\n",
    )


def test_a_name_that_no_file_can_have_is_a_sentence(run: Any) -> None:
    code, said = run("--config", "x" * 5000, "check")
    assert code == 2
    assert "cannot be read as a settings file" in said


def test_what_is_no_setting_is_refused_by_its_line(run: Any) -> None:
    """python-dotenv passes over it: a quote that is not closed would silently unset a setting."""
    Path("my.env").write_text("# fine\nQUEUE_NAME=abc\n\nAPI_KEY='not closed\nPOLL_MAX_SECONDS=5\n")
    code, said = run("--config", "my.env", "check")
    assert (code, said) == (2, "dispatcher: my.env is no settings file: no NAME=value in line 4\n")


def test_a_settings_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "my.env"
    file.write_bytes(b"\xef\xbb\xbfexport QUEUE_NAME='a b' # why\nEMPTY=\nBARE\n")
    found = support.read_environment(file)
    assert (found["QUEUE_NAME"], found["EMPTY"]) == ("a b", "")
    assert "BARE" not in found


@pytest.mark.parametrize("command", [["render", MESSAGE], ["run"]])
def test_a_template_that_is_no_text_is_named(run: Any, command: list[str]) -> None:
    Path("latin.yaml").write_bytes(b"kind: Job # caf\xe9\n")
    code, said = run(*command, env={**SETTINGS, "JOB_TEMPLATE": "latin.yaml"})
    assert code == 2
    assert "JOB_TEMPLATE latin.yaml cannot be read: " in said


@pytest.mark.parametrize("field", ["model_container_name=model-2", "task=other"])
def test_a_field_does_not_send_the_request_for_another_model(run: Any, field: str) -> None:
    code, said = run("submit", "model-1", "--field", field, env=SETTINGS)
    assert code == 2
    assert f"--field {field.split('=', maxsplit=1)[0]} is given twice, or is not yours to set" in said


def test_half_a_character_is_not_sent(run: Any) -> None:
    code, said = run("submit", "--unchecked", "--message", "\udcff", env=SETTINGS)
    assert code == 2
    assert said.startswith("dispatcher: The message cannot be read")


@pytest.mark.parametrize(
    "url", ["https://host/a/../b", "http://exa$mple.com", "http://host:0", "http://１２７.0.0.1", "http://host/päth"]
)
def test_an_address_that_the_client_refuses_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(SettingsError, match="1 setting is missing or wrong:\n  API_BASE_URL must be a URL"):
        Settings.read({**SETTINGS, "API_BASE_URL": url})


def test_a_portal_out_of_reach_is_not_one_that_knows_nothing() -> None:
    portal = PortalClient("http://127.0.0.1:9", "key-0123456789abcdef", timeout=5)
    said = status._portal("1", portal)
    portal.close()
    assert (said["status"], said["answered"]) == ("", False)
    assert "cannot be connected to" in said["message"]


def test_probes_are_served_where_pods_have_ipv6_addresses_only() -> None:
    server = HealthServer("::1", 0, Heartbeats(), list, CollectorRegistry())
    server.start()
    try:
        with urllib.request.urlopen(f"http://[::1]:{server.port}/livez", timeout=5) as answer:
            assert answer.status == 200
    finally:
        server.stop()


def test_a_host_that_is_none_is_an_error_of_the_operating_systems_kind() -> None:
    with pytest.raises(OSError, match="is no host"):
        HealthServer("h\u2603..", 0, Heartbeats(), list, CollectorRegistry())
