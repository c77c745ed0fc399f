"""training_common.azure_identity: one line for an identity without a token."""

from __future__ import annotations

import pytest

from training_common.azure_identity import no_token

CHAIN = """DefaultAzureCredential failed to retrieve a token from the included credentials.
Attempted credentials:
\tEnvironmentCredential: authentication unavailable. Environment variables are not fully configured.
\tWorkloadIdentityCredential: AADSTS700213: No matching federated identity record found for presented assertion \
subject 'system:serviceaccount:training-system:training-dispatcher'. Trace ID: 0000 Correlation ID: 1111
\tManagedIdentityCredential: authentication unavailable, no response from the IMDS endpoint."""
CLIENT = {"AZURE_CLIENT_ID": "11111111-2222-3333-4444-555555555555"}


@pytest.mark.parametrize(
    ("environ", "text", "said"),
    [
        (
            {**CLIENT, "AZURE_FEDERATED_TOKEN_FILE": "/token"},
            CHAIN,
            "AADSTS700213: No matching federated identity record",
        ),
        (CLIENT, "Attempted credentials: none", "webhook of workload identity has not given this pod one"),
        ({**CLIENT, "AZURE_FEDERATED_TOKEN_FILE": "/token"}, "no such host", "no such host"),
    ],
)
def test_what_is_missing_and_whose_it_is_are_not_cut_off(environ: dict[str, str], text: str, said: str) -> None:
    sentence = no_token(Exception(text), environ)
    assert said in sentence
    assert CLIENT["AZURE_CLIENT_ID"] in sentence
    assert "\n" not in sentence
    assert "Trace ID" not in sentence
    assert len(sentence) < 600
