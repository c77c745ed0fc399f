"""Every setting, message field, key of config.yaml and metric stands in the docs as the code has it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from dispatcher.config.settings import Settings, SettingsError
from dispatcher.decisions.admission import Action
from dispatcher.decisions.codes import CAUSES
from dispatcher.decisions.views.phases import Phase
from dispatcher.launch.job_template import RESERVED_ENV, TEAM_ENV
from dispatcher.telemetry.metrics import (
    BREAKER_STATES,
    LAUNCH_STEPS,
    OTHER_RESULTS,
    PAUSES,
    PREFIX,
    QUEUES,
    RELAY_CALLS,
    RELAY_RESULTS,
    WATCH_ENDS,
    Metrics,
)
from tests.world.pages import blocks, section, table_rows
from tests.world.repository import JOB_TEMPLATE, ROOT, read
from trainer_image.config.model_config import Config, format_duration
from training_common.settings import Setting


def _tables() -> ModuleType:
    """docs/tables.py, which is no package's."""
    spec = importlib.util.spec_from_file_location("docs_tables", ROOT / "docs" / "tables.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables = _tables()
CONFIGURE = read("docs/configure.md")
OPERATE = read("docs/operate.md")
AUTHORS = read("docs/trainer-authors.md")


@pytest.mark.parametrize(
    ("known", "groups"),
    [(tables.DISPATCHER, tables.DISPATCHER_TABLES), (tables.TRAINER, tables.TRAINER_TABLES)],
    ids=["dispatcher", "trainer"],
)
def test_every_setting_stands_in_one_of_the_tables(known: dict[str, Setting], groups: dict[str, str]) -> None:
    assert sorted(" ".join(groups.values()).split()) == sorted(known)
    assert all(f"<!-- table: {name} -->" in CONFIGURE for name in groups)


def test_what_is_generated_is_what_the_code_says_now() -> None:
    assert tables.filled(CONFIGURE) == CONFIGURE, "run: python docs/tables.py"
    assert tables.example() == read("config.env.example"), "run: python docs/tables.py"


def test_every_setting_that_the_pages_name_exists() -> None:
    known = {*tables.DISPATCHER, *tables.TRAINER} | {"KUBECONFIG", "DISPATCHER_CONFIG"}
    known |= {"AZURE_CLIENT_ID"}  # the Azure library reads it
    known |= {"WORK_DIR", "CONNECTION", "BASE_IMAGE", "ARGS", "KEEP", "FILE", "NAMESPACE", "IMAGE", "MANIFEST"}
    known |= {"QUEUE_NAME", "TASKS", "MESSAGE", "NAME", "API_KEY", "ACCOUNT", "FILL", "IN"}
    known |= {"MODEL_URL", "DATASET_URL"}  # files of CREDENTIALS_DIR
    known |= {"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"}  # the HTTP libraries read them
    known |= {"GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"}  # torch's own
    known |= TEAM_ENV  # for programs
    known |= set(re.findall(r"\$\(if \$\(([A-Z_]+)\)", read("Makefile")))
    for page in ("README.md", "docs/configure.md", "docs/operate.md", "docs/install.md", "docs/troubleshoot.md"):
        for name in re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:=[^`]*)?`", read(page)):
            assert name in known, f"{page} names {name}, which no program reads"


def test_the_example_of_wrong_settings_is_what_is_printed() -> None:
    [example] = [block for block in blocks(CONFIGURE, "console") if "settings are missing or wrong" in block]
    environ = {
        "AZURE_STORAGE_CONNECTION_STRING": "x",
        "API_BASE_URL": "https://portal.example.com",
        "JOB_TEMPLATE": str(JOB_TEMPLATE),
        "POLL_MAX_SECONDS": "1h",
    }
    with pytest.raises(SettingsError) as raised:
        Settings.read(environ)
    assert f"dispatcher: {raised.value}\n" in example


def test_every_field_of_a_message_is_documented() -> None:
    source = (ROOT / "dispatcher" / "launch" / "request.py").read_text(encoding="utf-8")
    known = set(re.findall(r'body\.get\("([a-z_]+)"\)', source)) - {"resources"} | {"resources.gpus", "resources.nodes"}
    rows = table_rows(section(CONFIGURE, "The queue message"))
    assert {row[0].strip("`") for row in rows} - {"anything else"} == known


def test_every_name_that_a_template_must_not_set_is_documented() -> None:
    text = section(CONFIGURE, "The Job template")
    assert all(f"`{name}`" in text for name in RESERVED_ENV | TEAM_ENV)


def test_every_label_and_annotation_is_documented() -> None:
    from dispatcher.cluster import names

    text = section(CONFIGURE, "The Job template")
    ours = [value for key, value in vars(names).items() if key.isupper() and str(value).startswith(names.MANAGER + "/")]
    assert len(ours) > 8
    assert [value for value in ours if value.removeprefix(names.MANAGER) not in text] == []


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        path = prefix + (field.alias or name)
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _keys(kind, f"{path}.")
        else:
            yield path, field.get_default(call_default_factory=True)


def test_every_key_of_config_yaml_is_documented_with_its_default() -> None:
    rows = {row[0].strip("`"): row[1].strip("`") for row in table_rows(section(AUTHORS, "config.yaml"))}
    keys = dict(_keys(Config))
    assert set(rows) == set(keys)
    for path, default in keys.items():
        if default is PydanticUndefined:
            expected = "required"
        elif default is None:
            expected = "–"
        else:
            expected = format_duration(default) if isinstance(default, float) else str(default)
            expected = expected.lower() if isinstance(default, bool) else expected
        assert rows[path] == expected, path


def test_every_metric_is_documented_with_its_labels_and_no_other() -> None:
    declared = {}
    for collector in set(Metrics().registry._names_to_collectors.values()):
        labels = set(getattr(collector, "_labelnames", ()))
        for family in collector.collect():
            name = family.name + ("_total" if family.type == "counter" else "")
            declared[name] = (family.type, labels)
    rows = {row[0].strip("`"): row for row in table_rows(section(OPERATE, "Probes and metrics")) if len(row) == 4}
    documented = {name: (row[1], set(re.findall(r"`(\w+)`", row[2]))) for name, row in rows.items()}
    assert documented == {name: found for name, found in declared.items() if name.startswith(PREFIX)}


def test_every_phase_of_a_job_is_documented() -> None:
    text = section(OPERATE, "Probes and metrics")
    rows = [row for row in table_rows(text) if len(row) == 2]
    assert [*Phase] == [phase for row in rows for phase in re.findall(r"`(\w+)`", row[0]) if phase in [*Phase]]


def test_every_reason_of_a_pause_and_every_end_of_a_watch_is_documented() -> None:
    rows = {row[0].strip("`"): row[3] for row in table_rows(section(OPERATE, "Probes and metrics")) if len(row) == 4}
    for metric, known in (
        ("intake_paused", PAUSES),
        ("circuit_breaker_state", (*CAUSES, *BREAKER_STATES)),
        ("launch_step_seconds", LAUNCH_STEPS),
        ("watch_restarts_total", WATCH_ENDS),
        ("queue_messages", QUEUES),
        ("relay_calls_total", (*RELAY_CALLS, *RELAY_RESULTS)),
    ):
        assert set(known) <= set(re.findall(r"`(\w+)`", rows[f"{PREFIX}_{metric}"])), metric


def test_every_result_that_a_message_can_have_is_documented() -> None:
    source = (ROOT / "dispatcher" / "intake" / "loop.py").read_text(encoding="utf-8")
    # BLOCKED is counted like any decision.
    known = {action.value for action in Action} | set(re.findall(r'messages\.labels\("([a-z]+)"\)', source))
    table = [row[0] for row in table_rows(section(OPERATE, "Probes and metrics")) if len(row) == 2]
    rows = {name.strip("`") for name in table if re.findall(r"\w+", name)[0] not in [*Phase]}
    assert rows == known
    assert known == {*(action.value for action in Action), *OTHER_RESULTS}


def test_every_alert_is_documented_and_no_other() -> None:
    rules = read("manifests/components/monitoring/prometheusrule.yaml")
    rows = {row[0].strip("`") for row in table_rows(section(read("docs/alerts.md"), "Every alert"))}
    assert rows == set(re.findall(r"alert: (\w+)", rules))
