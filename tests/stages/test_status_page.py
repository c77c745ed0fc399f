"""The status page of a real dispatcher: a request's way from the queue to its end, or to its refusal."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from local_stack.processes import free_port
from tests.world.dispatcher_process import Stage


def test_each_requests_fate_is_on_the_page_of_the_dispatcher(stage: Stage) -> None:
    port = free_port()
    stage.start(STATUS_PORT=str(port))

    def api(path: str = "status") -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=10) as answer:
            return json.load(answer)

    def row(section: str, model: str, **has: Any) -> Callable[[], Any]:
        def find() -> Any:
            found = (row for row in api()[section]["rows"] if row["model"] == model)
            return next((row for row in found if has.items() <= row.items()), None)

        return find

    done, refused, runs = stage.submit("done"), stage.submit("done", "Completed"), stage.submit("runs")
    stage.send("x" * 60)  # 66 characters: no container can be called so
    stage.wait(lambda: stage.status(done) == "Completed" and stage.running(runs) and stage.poison())
    stage.portal.set_model(runs, "Processing", "Epoch 3 of 4, loss 0.25")
    # Nobody has looked so far: the first look brings news of the queues and of the portal.
    stage.wait(row("ended", f"model-{done}", phase="completed", code="Completed"))
    stage.wait(row("refused", f"model-{refused}", code="refuse", poison=False))
    stage.wait(row("refused", f"model-{'x' * 60}", code="InvalidContainerName", poison=True))
    running = stage.wait(row("running", f"model-{runs}", sentence="Epoch 3 of 4, loss 0.25"))
    assert (running["gpus"], running["attempts"]) == (1, 1)
    assert (running["progress"]["done"], running["progress"]["losses"]) == (0.75, [[3, 0.25]])

    [pod] = api(f"models/model-{runs}")["pods"]
    assert pod["phase"] == "Running"
    told, explained = api(f"models/model-{runs}"), json.loads(stage.cli("explain", runs, "--json")[1])
    assert told["standing"] == explained["standing"]
    assert [step | {"note": ""} for step in told["steps"]] == [step | {"note": ""} for step in explained["steps"]]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/models/model-{runs}", timeout=10) as page:
        assert b"<h1 id=" in page.read()
    about = api()
    counted = {name: about["trends"][name] for name in ("launched", "completed", "failed")}
    assert counted == {"launched": 2, "completed": 1, "failed": 0}
    assert about["dispatcher"]["not_ready"] == []
    assert about["queue"]["name"] == stage.name
    # Not beside the probes, which answer all the same.
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{stage.port}/api/status", timeout=10)
    # The page's own calls are not in the log: the one that is there was the launch's.
    assert stage.log().count(f"/models/{runs}/status") == 1

    # Another process knows of the last day what Jobs tell.
    assert stage.processes[-1].stop() == 0
    stage.start(STATUS_PORT=str(port))
    stage.wait(lambda: {name: api()["trends"][name] for name in counted} == counted)
    stage.wait(lambda: api()["trends"]["since"] == api()["trends"]["hours"][0]["began"])
