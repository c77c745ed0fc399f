"""The relay over HTTP: who is heard, what reaches the portal, what comes back to the trainer's own client."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from typing import Any

import pytest

from dispatcher.cluster.errors import ObjectConflict
from dispatcher.cluster.jobs import Job
from dispatcher.launch.credentials import DatasetRefused
from dispatcher.relay.relay import Budgets
from dispatcher.relay.tokens import Claims, RelayTokens
from dispatcher.storage.errors import StorageError
from local_stack.processes import wait_until
from portal_client import reporting
from portal_client.client import PortalClient
from portal_client.errors import PortalError, PortalUnauthorized, PortalUnavailable
from portal_client.statuses import ModelStatus, ProcessingStatus
from tests.dispatcher.relay.relay_world import KEY, OTHER_RUN, RUN, RelayWorld, a_job
from tests.portal_client import raw_portal

S = ProcessingStatus


@pytest.mark.parametrize("auth_method", ["auto", "x-api-key", "bearer"])
def test_a_trainers_own_client_reads_and_writes_its_models_status(auth_method: str) -> None:
    world = RelayWorld(auth_method=auth_method)
    try:
        client = world.client(auth_method=auth_method)
        assert client.get_model_status("1").message == "Model training started"
        client.update_model_status("1", S.PROCESSING, "Epoch 2 of 3")
        assert world.portal.models["1"] == ModelStatus(S.PROCESSING, "Epoch 2 of 3")
        client.update_model_status("1", S.COMPLETED, "Model training completed successfully")
        assert client.get_model_status("1").status is S.COMPLETED
        assert world.counted == [
            ("status", "passed"),
            ("progress", "passed"),
            ("outcome", "passed"),
            ("status", "passed"),
        ]
        assert world.outcomes == [("1", None)]
    finally:
        world.stop()


def test_of_the_two_headers_only_the_settings_own_is_looked_at() -> None:
    world = RelayWorld(auth_method="bearer")
    try:
        # `auto` tries x-api-key, is told 401, and falls back.
        assert world.client(auth_method="auto").get_model_status("1").status is S.PROCESSING
        assert [result for _, result in world.counted] == ["unauthorized", "passed"]
        with pytest.raises(PortalUnauthorized):
            world.client(auth_method="x-api-key").get_model_status("1")
    finally:
        world.stop()


@pytest.mark.parametrize(
    "token",
    ["", "nonsense", KEY, RelayTokens(["another key, which is not the relay's"]).make("1", RUN)],
)
def test_who_has_no_token_of_ours_is_told_401_and_learns_nothing(world: RelayWorld, token: str) -> None:
    for path in ("/", "/api/external/models/1/status", "/api/external/models/nobody/status"):
        status, body, headers = world.ask("GET", path, token=token)
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "model 1" not in str(body)
    assert world.portal.calls == []
    assert world.cluster.asked == 0


def test_another_models_status_is_neither_told_nor_changed(world: RelayWorld) -> None:
    assert world.get("2")[0] == 403
    assert world.put(2, model_id="2")[0] == 403
    assert world.portal.calls == []


def test_a_good_token_of_a_model_without_a_job_is_told_that_its_run_is_over(world: RelayWorld) -> None:
    assert world.get("2", token=world.token("2"))[0] == 410
    assert world.put(model_id="2", token=world.token("2"))[0] == 410
    assert world.portal.calls == []


def test_a_run_that_is_not_its_jobs_any_more_changes_nothing(world: RelayWorld) -> None:
    old = world.token()
    world.change(run_id=OTHER_RUN)
    assert world.put(2, token=old)[0] == world.get(token=old)[0] == 410
    assert world.portal.calls == []
    assert world.put(2, token=world.token(run_id=OTHER_RUN))[0] == 200


def test_a_job_that_the_cache_has_not_seen_yet_is_asked_for(world: RelayWorld) -> None:
    world.cached.clear()
    assert world.get()[0] == 200
    assert world.cluster.asked == 1


def test_what_the_cache_has_against_a_run_is_asked_of_the_api_server(world: RelayWorld) -> None:
    world.cached["model-1"] = a_job(run_id=OTHER_RUN)
    assert world.get()[0] == 200


@pytest.mark.parametrize("status", [2, 3])
def test_an_outcome_is_not_passed_on_by_a_cache_that_is_behind(world: RelayWorld, status: int) -> None:
    world.cluster.have(a_job(reported=True))
    assert world.put(status)[0] == 410
    assert world.portal.puts == []


def test_a_stale_cache_does_not_undo_what_a_user_has_moved(world: RelayWorld) -> None:
    """Another replica has acknowledged and reported the Job, and the user asked for a new training."""
    world.cached["model-1"] = a_job(acknowledged=False)
    world.cluster.have(a_job(reported=True))
    world.portal.models["1"] = ModelStatus(S.RECONFIGURE, "")
    assert world.put(1)[0] == 410
    assert world.portal.puts == []


def test_with_the_api_server_away_progress_goes_on_and_an_outcome_waits(world: RelayWorld) -> None:
    world.cluster.away = True
    assert world.put(1)[0] == 200
    status, body = world.put(2)
    assert status == 503
    assert "look at the Job" in body["detail"]
    world.cluster.away = False
    assert world.put(2)[0] == 200


def test_a_late_progress_message_never_covers_the_outcome(world: RelayWorld) -> None:
    client = world.client()
    client.update_model_status("1", S.FAILED, "Invalid dataset")
    with pytest.raises(PortalUnavailable) as caught:
        client.update_model_status("1", S.PROCESSING, "Epoch 3 of 3")
    assert caught.value.status_code == 409
    with pytest.raises(PortalUnavailable):
        client.update_model_status("1", S.COMPLETED, "after all")
    client.update_model_status("1", S.FAILED, "Invalid dataset")
    assert world.portal.models["1"].status is S.FAILED


def test_an_outcome_that_may_have_been_taken_is_not_contradicted_while_the_portal_lags(world: RelayWorld) -> None:
    world.portal.fail(PortalUnavailable("timed out", ambiguous=True), "PUT")
    assert world.put(2)[0] == 502
    world.portal.during = lambda what: None
    assert world.portal.models["1"].status is S.PROCESSING
    assert world.put(3)[0] == world.put(1)[0] == 409
    assert world.put(2)[0] == 200


def test_an_outcome_that_was_certainly_not_taken_leaves_the_run_free(world: RelayWorld) -> None:
    world.portal.fail(PortalUnavailable("503", status_code=503), "PUT")
    assert world.put(2)[0] == 503
    world.portal.during = lambda what: None
    assert world.put(3)[0] == 200


def test_the_model_has_one_author_at_a_time(world: RelayWorld) -> None:
    with world.locks.hold("1"):
        status, _, headers = world.ask("PUT", "/api/external/models/status", {"ModelId": "1", "Status": 2})
        assert (status, headers["Retry-After"]) == (503, "1")
        assert world.portal.calls == []
        assert world.get()[0] == 200
    assert world.put(2)[0] == 200
    with world.locks.hold("1", 0.0) as free:
        assert free


def test_progress_goes_in_its_turn_and_an_outcome_at_once(world: RelayWorld) -> None:
    for number in range(500):
        world.relay.pace.wait(f"another {number}")
    status, _, headers = world.ask("PUT", "/api/external/models/status", {"ModelId": "1", "Status": 1})
    assert (status, headers["Retry-After"]) == (429, "5")
    assert world.put(2)[0] == 200
    world.portal.models["1"] = ModelStatus(S.PROCESSING, "")
    world.now += 5
    assert world.counted[0] == ("progress", "paced")


def test_progress_that_waits_keeps_its_place(world: RelayWorld) -> None:
    for number in range(500):
        world.relay.pace.wait(f"another {number}")
    assert world.put(1)[0] == 429
    for number in range(500):
        world.relay.pace.wait(f"later {number}")
    world.now += 5.1
    assert world.put(1)[0] == 200


def test_one_run_that_asks_without_end_does_not_reach_the_portal_without_end(world: RelayWorld) -> None:
    answers = [world.get()[0] for _ in range(40)]
    assert answers == [200] * 20 + [429] * 20
    assert world.put(2)[0] == 200, "its outcome has a budget of its own"
    world.now += 1
    assert world.get()[0] == 200


def test_runs_that_are_remembered_are_bounded() -> None:
    budgets = Budgets(lambda: 0.0)
    for number in range(30_000):
        budgets.spend(Claims(str(number), RUN), urgent=False)
    assert len(budgets._left) <= 20_000


def test_with_tracking_off_no_status_is_served() -> None:
    world = RelayWorld(portal=None)
    try:
        assert world.get()[0] == world.put()[0] == 404
    finally:
        world.stop()


def test_the_portals_key_and_address_never_come_back(world: RelayWorld) -> None:
    world.portal.fail(PortalUnavailable("The portal at https://portal.example.com cut the connection"))
    status, body, headers = world.get()
    assert status == 502
    assert "portal.example.com" not in str(body)
    world.portal.fail(PortalUnauthorized("The portal does not accept the API key", status_code=401))
    status, body, headers = world.get()
    assert status == 503, "a wrong key of the dispatcher's is no 401 of the token's"
    assert set(headers) == {"Server", "Date", "Content-Type", "Content-Length"}


def test_the_log_names_model_and_run_and_never_the_token(world: RelayWorld, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world.get()
    world.put(2, "done")
    world.get("2")
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("dispatcher.relay")]
    assert f"Model 1: run {RUN} asks the relay for Completed: 200, passed" in lines
    assert f"Model 1: run {RUN} asks the relay for GET /api/external/models/2/status: 403, forbidden" in lines
    assert world.token().rpartition(".")[2] not in caplog.text


def test_a_call_that_is_under_way_is_answered_before_the_end(world: RelayWorld) -> None:
    inside, go_on = threading.Event(), threading.Event()
    answers: list[int] = []

    def during(what: str) -> None:
        inside.set()
        go_on.wait(20)

    world.portal.during = during
    asking = threading.Thread(target=lambda: answers.append(world.put(2)[0]))
    asking.start()
    assert inside.wait(10)
    ending = threading.Thread(target=world.server.finish, args=(20,))
    ending.start()
    assert ending.is_alive()
    go_on.set()
    for thread in (asking, ending):
        thread.join(20)
        assert not thread.is_alive()
    assert answers == [200]
    with pytest.raises(ConnectionRefusedError):
        world.get()


def test_a_trainer_that_asks_again_uses_its_connection(world: RelayWorld) -> None:
    client = world.client()
    for _ in range(3):
        client.get_model_status("1")
        client.update_model_status("1", S.PROCESSING, "m")
        world.now += 1
    wait_until(lambda: len(world.server._since) == 1, 5)


def test_a_pod_that_opens_all_connections_cuts_its_own_and_nobody_elses(
    world: RelayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.server, "_most", 8)
    address = ("127.0.0.1", world.server.port)
    with contextlib.ExitStack() as stack:
        # Slow: its connection is there long before its request.
        slow = stack.enter_context(socket.create_connection(address, 10, ("127.0.0.2", 0)))
        flood = [stack.enter_context(socket.create_connection(address, 10)) for _ in range(40)]
        wait_until(lambda: len(world.server._since) <= 8 and sum(_is_cut(each) for each in flood) >= 32, 10)
        slow.sendall(f"GET /api/external/models/1/status HTTP/1.1\r\nx-api-key: {world.token()}\r\n\r\n".encode())
        assert slow.recv(64).startswith(b"HTTP/1.1 200")


def _is_cut(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def a_raw(status: str, body: str = "", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body.encode())}", *headers, "", body]
    return "\r\n".join(lines).encode()


JSON, HTML = "Content-Type: application/json", "Content-Type: text/html"
RAW_ANSWERS = {
    "200": a_raw("200 OK", '{"status": "Processing", "message": "m"}', JSON),
    "200 number": a_raw("200 OK", '{"status": 1}', JSON),
    "200 HTML": a_raw("200 OK", "<html>Sign in</html>", HTML),
    "200 empty": a_raw("200 OK"),
    "200 denied": a_raw("200 OK", '{"status": 1, "success": false, "error": "too long"}', JSON),
    "200 unknown status": a_raw("200 OK", '{"status": "Paused"}', JSON),
    "202": a_raw("202 Accepted", '{"status": 1}', JSON),
    "302 to a login": a_raw("302 Found", "", "Location: /Account/Login"),
    "400": a_raw("400 Bad Request", '{"detail": "Message is too long"}', JSON),
    "401": a_raw("401 Unauthorized"),
    "403 firewall": a_raw("403 Forbidden", "<html>rule 949110</html>", HTML),
    "404 words": a_raw("404 Not Found", '{"detail": "There is no model 1"}', JSON),
    "404": a_raw("404 Not Found"),
    "404 router": a_raw("404 Not Found", "404 page not found"),
    "409": a_raw("409 Conflict", '{"detail": "row version"}', JSON),
    "423": a_raw("423 Locked"),
    "413": a_raw("413 Content Too Large"),
    "422": a_raw("422 Unprocessable Content", '{"detail": "Message"}', JSON),
    "429": a_raw("429 Too Many Requests", "", "Retry-After: 7"),
    "500": a_raw("500 Internal Server Error"),
    "503": a_raw("503 Service Unavailable", "", "Retry-After: 3", "Set-Cookie: a=b", "X-Secret: s"),
    "cut": b"HTTP/1.1 200 OK\r\nContent-Le",
}
# To the training the portal's dislike of the dispatcher's own key is an outage: its own token is good.
ELSEWHERE = {"302 to a login": PortalUnavailable, "401": PortalUnavailable}


PROCESSING = a_raw("200 OK", '{"status": "Processing", "message": "m"}', JSON)


def answering(method: str, answer: bytes) -> raw_portal.Serve:
    """A portal that gives this answer to one method, and to the other the proper one."""

    def serve(connection: Any) -> None:
        while asked := raw_portal.read_request(connection):
            given = answer if asked.startswith(method.encode()) else PROCESSING
            connection.sendall(given)
            if given is RAW_ANSWERS["cut"]:
                return

    return serve


@pytest.mark.parametrize("name", RAW_ANSWERS)
@pytest.mark.parametrize("wish", [None, S.PROCESSING, S.COMPLETED], ids=["read", "progress", "outcome"])
def test_an_answer_through_the_relay_means_what_it_means_at_the_portal(
    name: str, wish: ProcessingStatus | None
) -> None:
    def result_of(client: PortalClient) -> Any:
        try:
            return client.get_model_status("1") if wish is None else client.update_model_status("1", wish, "m")
        except PortalError as error:
            return error

    with raw_portal.serving(answering("PUT" if wish else "GET", RAW_ANSWERS[name])) as port:
        portal = PortalClient(f"http://127.0.0.1:{port}", "key-0123456789", timeout=10)
        world = RelayWorld(portal=portal)
        direct, passed_on = result_of(portal), result_of(world.client())
        world.stop()
    if not isinstance(direct, PortalError):
        assert passed_on == direct
        return
    assert type(passed_on) is ELSEWHERE.get(name, type(direct)), passed_on
    assert (passed_on.retryable, passed_on.retry_after) == (direct.retryable, direct.retry_after)
    assert passed_on.ambiguous or not direct.ambiguous, "what may have been taken is not called untaken"
    assert reporting._may_be_the_words(passed_on) == reporting._may_be_the_words(direct)


class Datasets:
    """Credentials that give any dataset but one; `asked` holds (the Job's run, the container)."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.asked: list[tuple[str | None, str]] = []
        self.fault = fault

    def for_dataset(self, job: Job, container: str) -> str:
        self.asked.append((job.annotations.run_id, container))
        if self.fault is not None:
            raise self.fault
        return f"https://acme.blob.core.windows.net/{container}?sig=secret"


def asked_for(world: RelayWorld, container: object = "dataset-x") -> tuple[int, Any, dict[str, str]]:
    return world.ask("POST", "/training/dataset", {"container": container})


def test_a_dataset_that_only_the_training_knows_is_asked_for_through_the_relay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    world = RelayWorld(credentials=Datasets())
    try:
        status, body, _ = asked_for(world)
        assert (status, body) == (200, {"url": "https://acme.blob.core.windows.net/dataset-x?sig=secret"})
        assert world.counted == [("dataset", "passed")]
        assert "asks the relay for the dataset 'dataset-x': 200, passed" in caplog.text
        assert "sig=secret" not in caplog.text
        assert asked_for(world, ["dataset-x"])[0] == 400
        assert world.ask("GET", "/training/dataset")[0] == 405
        assert world.portal.calls == []
    finally:
        world.stop()


def test_a_dataset_is_only_given_to_the_run_of_the_job_as_it_is_now() -> None:
    datasets = Datasets()
    world = RelayWorld(credentials=datasets)
    try:
        world.cluster.have(a_job(reported=True))
        assert asked_for(world)[0] == 410
        world.cluster.have(a_job(run_id=OTHER_RUN))
        assert asked_for(world)[0] == 410
        with world.locks.hold("1"):
            assert asked_for(world)[0] == 503
        assert datasets.asked == []
    finally:
        world.stop()


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        (DatasetRefused("The dataset model-2 is another model's container"), 403, "another model's container"),
        (StorageError("Cannot get a user-delegation key", retryable=True), 503, "its log tells why"),
        (ObjectConflict("somebody else was faster"), 503, "look at the Job"),
    ],
)
def test_a_dataset_that_is_not_given_is_told_with_a_sentence(fault: Exception, status: int, said: str) -> None:
    world = RelayWorld(credentials=Datasets(fault))
    try:
        answer = asked_for(world)
        assert answer[0] == status
        assert said in answer[1]["detail"]
    finally:
        world.stop()


def test_with_shared_credentials_no_dataset_is_given_and_the_trainings_user_is_not_to_blame(world: RelayWorld) -> None:
    assert asked_for(world)[0] == 503
