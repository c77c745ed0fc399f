"""dispatcher.cli.status without any service."""

from __future__ import annotations

from dispatcher.cli import status
from dispatcher.cli.explain import ask_portal
from dispatcher.config.settings import Settings
from dispatcher.controller.summaries import summarise
from portal_client.client import PortalClient
from tests.world.builders import a_node, a_team, running
from tests.world.repository import JOB_TEMPLATE


def test_a_portal_out_of_reach_is_not_one_that_knows_nothing() -> None:
    portal = PortalClient("http://127.0.0.1:9", "key-0123456789abcdef", timeout=5)
    said = ask_portal("1", portal)
    portal.close()
    assert (said.status, said.answered) == ("", False)
    assert "cannot be connected to" in said.message


def test_of_a_training_on_several_nodes_it_says_how_many_run() -> None:
    environ = {"QUEUE_NAME": "requests", "AZURE_STORAGE_CONNECTION_STRING": "x", "STATUS_TRACKING": "off"}
    environ["TEAM_WAIT_SECONDS"] = "0"  # these have waited for long
    settings = Settings.read({**environ, "JOB_TEMPLATE": str(JOB_TEMPLATE)})
    pods = [a_node(index, phase="Running", state=running()) for index in range(2)]
    whole, torn = (status._job(summarise(a_team(nodes), pods), "", settings) for nodes in (2, 3))
    assert (whole["phase"], whole["nodes"], whole["nodes_running"]) == ("running", 2, 2)
    assert (torn["phase"], torn["nodes"], torn["nodes_running"]) == ("waiting", 3, 2)
    assert status._job_line(whole).startswith("Job model-1 on 2 nodes since ")
    assert status._job_line(whole).endswith("Running, not yet reported: The trainer runs on 2 nodes")
    assert status._job_line(torn).endswith("Waiting, not yet reported: 2 of 3 pods run")
