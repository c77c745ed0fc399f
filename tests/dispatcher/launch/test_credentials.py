"""dispatcher.launch.credentials: what the Secret of a Job holds, when it is renewed, which dataset a training gets."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pytest

from dispatcher.cluster import names
from dispatcher.cluster.errors import ObjectInvalid
from dispatcher.cluster.jobs import Job
from dispatcher.launch.credentials import DatasetRefused, ScopedCredentials, doubted_at
from dispatcher.launch.job_spec import JobDefaults
from tests.dispatcher.launch.built_jobs import a_request, built
from tests.world import json_objects as objects
from tests.world.builders import a_pod, terminated

NOW = 1_795_000_000.0
DAY = 86400.0
SCOPED = JobDefaults({}, 7200, "trainer:0.1.0", scoped=True)


class Storage:
    longest = 6 * DAY
    signer = "key-1"

    def distrust(self) -> None:
        self.signer += " anew"

    def sas(self, container: str, *, write: bool, until: float) -> str:
        return f"https://account.blob/{container}?sp={'rwdl' if write else 'rl'}&until={until:.0f}&sig={self.signer}"


class Cluster:
    """Takes what is written. patches: those of the Job."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.job = dict(job)
        self.secret: dict[str, Any] = {}
        self.patches: list[Mapping[str, Any]] = []

    def apply_secret(self, secret: Mapping[str, Any]) -> None:
        self.secret = dict(secret)

    def patch_job(self, name: str, patch: Mapping[str, Any]) -> Job:
        self.patches.append(patch)
        assert patch["metadata"]["uid"] == self.job["metadata"]["uid"]
        self.job["metadata"]["annotations"] |= patch["metadata"]["annotations"]
        return self.read()

    def read(self) -> Job:
        return objects.job(self.job)

    @property
    def data(self) -> dict[str, str]:
        return {key: base64.b64decode(value).decode() for key, value in self.secret["data"].items()}


class World:
    def __init__(self, *, scoped: bool = True, **fields: Any) -> None:
        job = built(request=a_request(**fields), defaults=SCOPED if scoped else JobDefaults({}, 7200, "trainer:0.1.0"))
        job["metadata"] |= {"uid": "uid-1", "resourceVersion": "7"}
        self.now = NOW
        self.key = "relay-key"
        self.storage = Storage()
        self.cluster = Cluster(job)
        self.credentials = ScopedCredentials(
            self.cluster,  # type: ignore[arg-type]  # what it needs of it
            self.storage,
            lambda model_id, run_id: f"v1.{model_id}.{run_id}.{self.key}",
            clock=lambda: self.now,
        )

    @property
    def job(self) -> Job:
        return self.cluster.read()

    def due_in(self) -> float:
        return self.credentials.due_at(self.job) - self.now

    def renew(self) -> None:
        self.credentials.renew(self.job)


def test_the_secret_is_named_as_the_job_owned_by_it_and_labelled_as_it() -> None:
    world = World(dataset_container_name="dataset-xyz")
    world.renew()
    secret = world.cluster.secret
    assert (secret["kind"], secret["type"]) == ("Secret", "Opaque")
    assert secret["metadata"] == {
        "name": "model-123",
        "labels": {names.MANAGED_BY: names.MANAGER, names.MODEL_ID: "123"},
        "ownerReferences": [
            {"apiVersion": "batch/v1", "kind": "Job", "name": "model-123", "uid": "uid-1", "controller": False}
        ],
    }
    until = NOW + 7200 + DAY
    assert world.cluster.data == {
        "API_KEY": f"v1.123.{world.job.annotations.run_id}.relay-key",
        "MODEL_URL": f"https://account.blob/model-123?sp=rwdl&until={until:.0f}&sig=key-1",
        "DATASET_URL": f"https://account.blob/dataset-xyz?sp=rl&until={until:.0f}&sig=key-1",
    }
    assert world.job.annotations.credentials_until == "2026-11-19T13:06:40Z"


def test_no_annotation_holds_a_credential() -> None:
    world = World(dataset_container_name="dataset-xyz")
    world.renew()
    written = str(world.cluster.patches)
    assert not any(secret in written for secret in ("sig=", "relay-key", "key-1", "v1.123"))


def test_a_dataset_that_nobody_knows_yet_has_no_url() -> None:
    world = World()
    world.renew()
    assert set(world.cluster.data) == {"API_KEY", "MODEL_URL"}


def test_signatures_are_good_for_the_time_limit_and_a_day_and_never_for_longer_than_storage_makes_them() -> None:
    world = World()
    world.cluster.job["spec"]["activeDeadlineSeconds"] = 90 * 86400
    world.renew()
    assert f"until={NOW + 6 * DAY:.0f}" in world.cluster.data["MODEL_URL"]


def test_it_is_renewed_at_half_of_its_validity_again_and_again() -> None:
    world = World()
    assert world.due_in() < 0, "nobody has made it"
    world.renew()
    half = (7200 + DAY) / 2
    assert world.due_in() == half
    world.now += half + 1
    assert world.due_in() < 0
    world.renew()
    assert world.due_in() == half


def test_one_that_ran_out_while_no_dispatcher_ran_is_renewed_at_once() -> None:
    world = World()
    world.renew()
    world.now += 30 * DAY
    assert world.due_in() < 0
    world.renew()
    assert world.due_in() > 0


@pytest.mark.parametrize("what", ["storage", "relay"])
def test_a_rotated_key_is_reason_to_renew_soon_but_not_to_take_turns_with_a_dispatcher_that_has_the_old_one(
    what: str,
) -> None:
    world = World()
    world.renew()
    world.now += 3600
    if what == "storage":
        world.storage.signer = "key-2"
    else:
        world.key = "relay-key-2"
    assert world.due_in() < 0
    world.renew()
    assert world.due_in() > 3600
    # The other dispatcher sees what was just made with a key that is not its own.
    world.storage.signer = "key-1 again"
    assert 30 < world.due_in() < 120, "less than a training's patience"


@pytest.mark.parametrize(
    "note", ["", "2026-11-18T11:06:40Z", "nonsense abc", "2099-01-01T00:00:00Z abc", "0001-01-01T00:00:00Z abc"]
)
def test_a_note_that_somebody_has_changed_is_reason_to_renew(note: str) -> None:
    world = World()
    world.renew()
    world.cluster.job["metadata"]["annotations"][names.CREDENTIALS_MADE] = note
    assert world.due_in() <= 60


MOUNT = 'MountVolume.SetUp failed for volume "training-credentials" : secret "model-123" not found'


def test_a_secret_that_a_pod_does_not_get_is_made_again_and_not_at_every_look() -> None:
    progress = f"Waiting for the pod's volumes and network: {MOUNT}"
    world = World()
    world.renew()
    world.now += 3600
    assert doubted_at([], "Waiting for the pod's volumes and network: a disk", world.now) is None
    for _ in range(3):
        doubted = doubted_at([], progress, world.now)
        assert world.credentials.due_at(world.job, doubted) < world.now
        world.credentials.renew(world.job, doubted=True)
        world.now += 30
        assert world.credentials.due_at(world.job, doubted_at([], progress, world.now)) == world.now + 30
        world.now += 31


def test_what_storage_refuses_is_signed_anew_by_another_key_for_the_next_pod() -> None:
    world = World()
    world.renew()
    ended = [
        a_pod(phase="Failed", state=terminated(code, finished_at=NOW + at)) for code, at in ((201, 600), (137, 900))
    ]
    world.now += 1000
    doubted = doubted_at(ended, None, world.now)
    assert doubted == NOW + 600
    assert world.credentials.due_at(world.job, doubted) < world.now
    world.credentials.renew(world.job, doubted=True)
    assert "sig=key-1 anew" in world.cluster.data["MODEL_URL"]
    assert world.credentials.due_at(world.job, doubted) > world.now + 3600, "once for each end"
    assert doubted_at(ended[1:], None, world.now) is None


def test_a_job_of_before_scoped_credentials_is_left_alone() -> None:
    world = World(scoped=False)
    assert not world.job.is_scoped
    assert world.due_in() == float("inf")


def test_a_job_whose_run_no_token_can_name_is_said_and_is_no_defect() -> None:
    world = World()
    world.renew()

    def make(model_id: str, run_id: str) -> str:
        raise ValueError("no token can name the run '..'")

    world.credentials.token = make
    for call in (world.credentials.due_at, world.credentials.give):
        with pytest.raises(ObjectInvalid, match="can have no credentials"):
            call(world.job)


# A dataset that only the training knows


def test_a_dataset_is_noted_before_it_is_given_and_is_in_every_renewal() -> None:
    world = World()
    world.renew()
    url = world.credentials.for_dataset(world.job, "dataset-new")
    assert url.startswith("https://account.blob/dataset-new?sp=rl&")
    assert world.job.dataset == "dataset-new"
    first = next(patch for patch in world.cluster.patches if names.DATASET in patch["metadata"]["annotations"])
    assert first["metadata"]["resourceVersion"] == "7", "of two who ask at once only one is first"
    assert "/dataset-new?" in world.cluster.data["DATASET_URL"]
    world.renew()
    assert "/dataset-new?" in world.cluster.data["DATASET_URL"]


def test_it_may_be_asked_for_again_and_no_other_after_it() -> None:
    world = World()
    world.credentials.for_dataset(world.job, "dataset-new")
    patches = len(world.cluster.patches)
    world.credentials.for_dataset(world.job, "dataset-new")
    assert len(world.cluster.patches) == patches
    with pytest.raises(DatasetRefused, match="has the dataset dataset-new; a second one, dataset-two, is refused"):
        world.credentials.for_dataset(world.job, "dataset-two")


def test_the_messages_dataset_decides() -> None:
    world = World(dataset_container_name="dataset-xyz")
    assert "/dataset-xyz?" in world.credentials.for_dataset(world.job, "dataset-xyz")
    with pytest.raises(DatasetRefused, match="has the dataset dataset-xyz"):
        world.credentials.for_dataset(world.job, "dataset-new")


@pytest.mark.parametrize(
    "container", ["model-124", "model-1234", "model-12", "Dataset", "", "a/b", "x?sig=1", "..", "$logs"]
)
def test_no_training_gets_another_models_container_or_what_is_none(container: str) -> None:
    world = World()
    with pytest.raises(DatasetRefused):
        world.credentials.for_dataset(world.job, container)
    assert world.cluster.patches == []
    assert world.cluster.secret == {}


def test_a_training_may_have_its_dataset_in_its_own_container() -> None:
    world = World()
    assert "/model-123?sp=rl&" in world.credentials.for_dataset(world.job, "model-123")
