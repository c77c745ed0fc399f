"""What the portal client's tests share: one portal that `responses` plays, one GET, one PUT."""

from __future__ import annotations

import pytest
import responses

from portal_client.client import PortalClient
from portal_client.errors import PortalError, PortalUnavailable
from portal_client.statuses import ModelStatus, ProcessingStatus

BASE = "https://portal.example.com"
GET_URL = f"{BASE}/api/external/models/123/status"
PUT_URL = f"{BASE}/api/external/models/status"
KEY = "0123456789abcdef0123456789abcdef"
HTML = "<!DOCTYPE html><html><body>Sign in</body></html>"


def a_client(auth_method: str = "x-api-key") -> PortalClient:
    return PortalClient(BASE, KEY, auth_method)


def get(client: PortalClient) -> ModelStatus:
    return client.get_model_status("123")


def put(client: PortalClient) -> None:
    client.update_model_status("123", ProcessingStatus.PROCESSING, "Model training started")


def error_of_get(api: responses.RequestsMock, **answer: object) -> PortalError:
    api.get(GET_URL, **answer)  # type: ignore[arg-type]
    with pytest.raises(PortalError) as caught:
        get(a_client())
    return caught.value


def error_of_put(api: responses.RequestsMock, **answer: object) -> PortalError:
    api.put(PUT_URL, **answer)  # type: ignore[arg-type]
    with pytest.raises(PortalError) as caught:
        put(a_client())
    return caught.value


def failure_of_get(client: PortalClient, model_id: str) -> PortalError:
    with pytest.raises(PortalUnavailable) as caught:
        client.get_model_status(model_id)
    return caught.value


def failure_of_put(client: PortalClient, model_id: str) -> PortalError:
    with pytest.raises(PortalUnavailable) as caught:
        client.update_model_status(model_id, ProcessingStatus.PROCESSING, "m")
    return caught.value
