"""Placeholders that nobody has filled in are named where they are still there, and nothing else is."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from dispatcher.config.placeholders import placeholders
from dispatcher.config.settings import Settings
from tests.world.repository import JOB_TEMPLATE, MANIFESTS, ROOT

GOOD = {
    "QUEUE_NAME": "requests",
    "AZURE_STORAGE_CONNECTION_STRING": "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=a2V5;",
    "API_BASE_URL": "https://portal.acme.io/example",
    "API_KEY": "k-0123456789",
    "JOB_TEMPLATE": str(JOB_TEMPLATE),
    "TRAINER_IMAGE": "registry.acme.io/trainer:1",
}
TEMPLATE: dict[str, Any] = {"spec": {"image": "registry.acme.io/trainer:1"}}


def named(template: dict[str, Any] = TEMPLATE, **settings: str) -> list[str]:
    environ = {name: value for name, value in (GOOD | settings).items() if value}
    return list(placeholders(Settings.read(environ), environ, template))


def test_what_is_filled_in_is_left_alone() -> None:
    assert named() == []
    assert (
        named(API_BASE_URL="https://myexample.com.acme.io", AZURE_CLIENT_ID="12345678-0000-0000-0000-000000000000")
        == []
    )


@pytest.mark.parametrize(
    ("name", "value", "placeholder"),
    [
        ("API_BASE_URL", "https://portal.example.com", "portal.example.com"),
        ("API_KEY", "your_api_key_here", "your_api_key_here"),
        ("API_KEY", "...", "..."),
        ("TRAINER_IMAGE", "registry.example.com/training-dispatcher/trainer:0.1.0", "registry.example.com"),
        ("AZURE_CLIENT_ID", "00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000"),
        ("AZURE_STORAGE_CONNECTION_STRING", "AccountName=ACCOUNT;AccountKey=s3cr3t", "ACCOUNT"),
        ("AZURE_STORAGE_CONNECTION_STRING", "AccountName=acme;AccountKey=KEY;EndpointSuffix=x", "KEY"),
    ],
)
def test_a_placeholder_is_named_and_nothing_of_a_secret_beside_it(name: str, value: str, placeholder: str) -> None:
    assert named(**{name: value}) == [f"{name} still has the placeholder {placeholder}: fill it in"]


def test_the_queues_address_and_the_template_count_too() -> None:
    address = {
        "AZURE_STORAGE_CONNECTION_STRING": "",
        "AZURE_STORAGE_QUEUE_URL": "https://ACCOUNT.queue.core.windows.net",
    }
    assert named(**address) == ["AZURE_STORAGE_QUEUE_URL still has the placeholder ACCOUNT: fill it in"]
    [sentence] = named({"spec": {"image": "registry.example.com/trainer:1"}})
    assert sentence.startswith("JOB_TEMPLATE still has")


def test_every_place_of_the_manifests_that_says_fill_in_has_a_placeholder_that_is_known() -> None:
    """Those that a dispatcher sees: its settings, its identity, its template."""
    production = (MANIFESTS / "overlays" / "production" / "config.env").read_text(encoding="utf-8")
    production += (MANIFESTS / "components" / "workload-identity" / "queue.env").read_text(encoding="utf-8")
    lines = dict(line.split("=", 1) for line in production.splitlines() if line and not line.startswith("#"))
    kustomization = (MANIFESTS / "overlays" / "production" / "kustomization.yaml").read_text(encoding="utf-8")
    lines["TRAINER_IMAGE"] = re.findall(r"TRAINER_IMAGE=(\S+)", kustomization)[0]
    account = MANIFESTS / "components" / "workload-identity" / "serviceaccount.yaml"
    annotations = yaml.safe_load(account.read_text(encoding="utf-8"))["metadata"]["annotations"]
    lines["AZURE_CLIENT_ID"] = annotations["azure.workload.identity/client-id"]
    said = " ".join(named(**{"AZURE_STORAGE_CONNECTION_STRING": "", **lines}))
    for name in ("API_BASE_URL", "AZURE_STORAGE_QUEUE_URL", "TRAINER_IMAGE", "AZURE_CLIENT_ID"):
        assert f"{name} still has" in said
    example = dict(
        line.removeprefix("# ").split("=", 1)
        for line in (ROOT / "config.env.example").read_text(encoding="utf-8").splitlines()
        if re.match(r"(# )?(API_KEY|AZURE_STORAGE_CONNECTION_STRING)=.", line)
    )
    assert {sentence.split()[0] for sentence in named(**example)} == set(example) != set()
