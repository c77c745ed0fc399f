"""training_common.redaction: what never reaches a log or a sentence."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable

import pytest

from training_common.redaction import RedactSecrets, redact

SECRET = "Zm9vYmFyYmF6cXV4MTIzNA=="


@pytest.mark.parametrize(
    "text",
    [
        f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={SECRET};EndpointSuffix=core.windows.net",
        f"accountkey = {SECRET}",
        f"BlobEndpoint=https://a;SharedAccessSignature=sv=2024&ss=b&sig={SECRET}",
        f"Endpoint=sb://x;SharedAccessKeyName=n;SharedAccessKey={SECRET}",
        f"GET https://a.blob.core.windows.net/c/b?sv=2024&sig={SECRET}&se=2026",
        f"?sig={SECRET}",
        f"x-api-key: {SECRET}",
        f"X-Api-Key={SECRET}",
        f"{{'x-api-key': '{SECRET}', 'Accept': '*/*'}}",
        f'{{"x-api-key": "{SECRET}"}}',
        f"[(b'x-api-key', b'{SECRET}')]",
        f"Authorization: Bearer {SECRET}",
        f"{{'Authorization': 'Bearer {SECRET}'}}",
        f"authorization: SharedKey account:{SECRET}",
        f"Authorization: {SECRET}",
        f"the token Bearer {SECRET} was sent",
        f"API_KEY={SECRET}",
        f"'API_KEY': '{SECRET}'",
        f"https://user:{SECRET}@proxy.example.com:3128/",
        f"the client_secret='{SECRET}'",
        f"Authorization: Token {SECRET}",
        f"WANDB_API_KEY={SECRET}",
        f"export AWS_SECRET_ACCESS_KEY={SECRET}",
        f"AZURE_CLIENT_SECRET={SECRET}",
        f"PGPASSWORD={SECRET} psql",
        f"HF_TOKEN={SECRET}",
        f"{{'access_token': '{SECRET}'}}",
        f"Ocp-Apim-Subscription-Key: {SECRET}",
        f"/login?back=https%3A%2F%2Fa%3Fsv%3D1%26sig%3D{SECRET}",
    ],
)
def test_a_secret_is_gone_whatever_text_it_stands_in(text: str) -> None:
    clean = redact(text)

    assert SECRET not in clean
    assert "[redacted]" in clean
    assert redact(clean) == clean


@pytest.mark.parametrize("around", ["{}", "token '{}'", "x-api-key: {}", "Bearer {} was refused", "a,{},b", "/{}?x=1"])
def test_the_token_of_a_run_is_gone_and_the_run_is_still_named(around: str) -> None:
    proof = "0123456789abcdef" * 4
    clean = redact(around.format(f"v1.123.20261128t221500-1a2b3c4d.{proof}"))
    assert proof not in clean
    assert "[redacted]" in clean
    assert redact(clean) == clean


@pytest.mark.parametrize(
    "text",
    [
        "Model status update successful with x-api-key: 200",
        "Model status update successful with Bearer token: 200",
        "pad_token='[PAD]', eos_token=</s>, max_token: 512, sort_key=name",
        "Trying x-api-key authentication...",
        "Trying Bearer token authentication...",
        "x-api-key authentication failed (401)",
        "Using authentication method: x-api-key",
        "API Key configured: Yes (length: 32)",
        "API_KEY not configured",
        "Model API auth method: bearer",
        "Payload: {'ModelId': '123', 'Status': 1, 'Message': 'Model training started'}",
        "Making API PUT request to: https://localhost:44302/api/external/models/status",
        "Failed to download dataset from container: dataset-xyz",
        "design=5 assign=3",
        "expected one of auto, x-api-key, bearer",
        "columns: id, password, price",
    ],
)
def test_the_documents_lines_are_left_as_they_are(text: str) -> None:
    assert redact(text, [SECRET]) == text


def test_a_known_literal_goes_and_a_short_one_does_not_eat_words() -> None:
    assert redact("a my-own-secret about", ["my-own-secret", "ab", "a", ""]) == "a [redacted] about"


def logged(secrets: tuple[str, ...], emit: Callable[[logging.Logger], None]) -> str:
    """What a handler with RedactSecrets writes when `emit(logger)` is called."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    handler.addFilter(RedactSecrets(secrets))
    logger = logging.getLogger("test.redaction")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        emit(logger)
    finally:
        logger.removeHandler(handler)
    return stream.getvalue()


def test_arguments_are_redacted_and_harmless_records_keep_theirs() -> None:
    assert SECRET not in logged((), lambda log: log.info("sent %s", {"x-api-key": SECRET}))
    assert logged((), lambda log: log.info("%s of %d", "1", 2)) == "INFO 1 of 2\n"

    record = logging.LogRecord("n", logging.INFO, "p", 1, "%s of %d", ("1", 2), None)
    assert RedactSecrets().filter(record)
    assert record.args == ("1", 2)


def test_an_exceptions_text_is_redacted_and_its_traceback_kept() -> None:
    def emit(log: logging.Logger) -> None:
        try:
            raise RuntimeError(f"cannot use AccountKey={SECRET}")
        except RuntimeError:
            log.exception("failed")

    text = logged((), emit)

    assert SECRET not in text
    assert "Traceback" in text
    assert "cannot use AccountKey=[redacted]" in text


def test_arguments_that_do_not_fit_are_not_printed_raw() -> None:
    # Without the filter, logging itself prints template and arguments to stderr.
    record = logging.LogRecord("n", logging.INFO, "p", 1, "one %s", (SECRET, SECRET), None)

    RedactSecrets((SECRET,)).filter(record)

    assert record.getMessage() == "one %s ('[redacted]', '[redacted]')"
