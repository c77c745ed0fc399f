"""The token of one run: an HMAC over its model and its run, which any replica makes and checks without a record. Pure.

    v1.<model id>.<run id>.<64 hexadecimal digits>

Neither id can have a dot in it, so there is one way to read a token. It is good for as long as the run is its Job's,
which the rules look at, and never says anything of another model or run.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from portal_client.model_ids import MODEL_PREFIX, is_container_name

_VERSION = "v1"
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_PROOF = re.compile(r"[0-9a-f]{64}", re.ASCII)
# The longest that a token can be: nothing longer is looked at.
_MOST = len(_VERSION) + 63 + 64 + 64 + 3
_LABEL = b"training-dispatcher relay key v1"


@dataclass(frozen=True)
class Claims:
    """Whom a token is for."""

    model_id: str
    run_id: str

    @property
    def job(self) -> str:
        """The name of the model's Job."""
        return MODEL_PREFIX + self.model_id


class RelayTokens:
    """keys: the first signs, all are accepted. Without a key none is made, and none accepted."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = tuple(key.encode() for key in keys if key)

    def make(self, model_id: str, run_id: str) -> str:
        """Raises ValueError for ids that no token can name, and where there is no key."""
        claims = Claims(model_id, run_id)
        if not _can_stand(claims):
            raise ValueError(f"no token can name the model {ascii(model_id)[:80]} and the run {ascii(run_id)[:80]}")
        if not self._keys:
            raise ValueError("there is no key to sign tokens with: RELAY_KEY or API_KEY would be one")
        return f"{_text(claims)}.{_proof(self._keys[0], claims)}"

    def check(self, token: str) -> Claims | None:
        """Whom the token is for; None where it is no token that one of the keys has signed."""
        claims = claimed(token)
        if claims is None:
            return None
        given = token.rpartition(".")[2]
        # Each key is tried whatever the others said: the time tells nothing.
        right = [hmac.compare_digest(_proof(key, claims), given) for key in self._keys]
        return claims if any(right) else None


def claimed(token: str) -> Claims | None:
    """Whom it says that it is for, proven or not; None for what is no token."""
    parts = token.split(".") if len(token) <= _MOST else []
    if len(parts) != 4 or parts[0] != _VERSION or not _PROOF.fullmatch(parts[3]):
        return None
    claims = Claims(parts[1], parts[2])
    return claims if _can_stand(claims) else None


def keys_from(given: Sequence[str], secret: str) -> tuple[str, ...]:
    """`given`, or else one key that follows from `secret`, which every replica has; none where that is "", too."""
    if given or not secret:
        return tuple(given)
    return (hmac.new(secret.encode(), _LABEL, hashlib.sha256).hexdigest(),)


def _can_stand(claims: Claims) -> bool:
    return is_container_name(claims.job) and _RUN_ID.fullmatch(claims.run_id) is not None


def _text(claims: Claims) -> str:
    return f"{_VERSION}.{claims.model_id}.{claims.run_id}"


def _proof(key: bytes, claims: Claims) -> str:
    return hmac.new(key, _text(claims).encode(), hashlib.sha256).hexdigest()
