"""Jobs built of the smallest template and the smallest request."""

from __future__ import annotations

import json
from typing import Any

import yaml

from dispatcher.launch.job_spec import JobDefaults, build_job
from dispatcher.launch.job_template import load_template
from dispatcher.launch.request import Bounds, TrainingRequest, decode
from portal_client.statuses import ProcessingStatus
from tests.world.builders import T0

DEFAULTS = JobDefaults(env={"API_BASE_URL": "https://portal.example.com", "STATUS_TRACKING": "on"}, time_limit=3600)
BOUNDS = Bounds(max_gpus=8, max_time_limit=3600.0, priority_classes=("urgent",))
POD = "spec/template/spec"


def a_template(**spec: Any) -> dict[str, Any]:
    """The smallest template; spec: more fields of the Job's spec."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "trainer", "image": "trainer:1"}]}
    return {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": pod}, **spec}}


def a_request(**fields: Any) -> TrainingRequest:
    return decode(json.dumps({"task": "train", "model_container_name": "model-123", **fields}), BOUNDS)


def built(
    template: dict[str, Any] | None = None,
    request: TrainingRequest | None = None,
    defaults: JobDefaults = DEFAULTS,
    shown: ProcessingStatus | None = None,
) -> dict[str, Any]:
    template = template or a_template()
    load_template(yaml.safe_dump(template), defaults.image)
    request = request or a_request()
    return build_job(template, request, message_id="message-1", queued_at=T0, defaults=defaults, shown=shown)


def trainer_of(job: dict[str, Any]) -> dict[str, Any]:
    return next(c for c in job["spec"]["template"]["spec"]["containers"] if c.get("name") == "trainer")


def changed(path: str, value: Any) -> dict[str, Any]:
    """The smallest template with one field changed, or without it where value is `...`.

    path: the field's keys with slashes between them; "trainer" is the container.
    """
    template = a_template()
    *way, last = path.split("/")
    place: Any = template
    for key in way:
        place = place["containers"][0] if key == "trainer" else place.setdefault(key, {})
    if value is ...:
        place.pop(last, None)
    else:
        place[last] = value
    return template
