"""What stages and trainer need of the status API, without the HTTP library: `portal_client.client` is the real one."""

from __future__ import annotations

from typing import Protocol

from portal_client.statuses import ModelStatus, ProcessingStatus


class Portal(Protocol):
    """The status API. Every method raises PortalError."""

    def get_model_status(self, model_id: str) -> ModelStatus: ...
    def update_model_status(self, model_id: str, status: ProcessingStatus, message: str) -> None: ...
