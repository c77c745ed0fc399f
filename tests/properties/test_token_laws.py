"""Laws of the relay's tokens: one is good for its own model and run, and for nothing else."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.relay.tokens import Claims, RelayTokens
from tests.properties.test_request_laws import MODEL_IDS

RUNS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True)
KEYS = st.text(string.ascii_letters + string.digits, min_size=32, max_size=40)


@given(MODEL_IDS, RUNS, st.lists(KEYS, min_size=1, max_size=4, unique=True), st.data())
def test_any_of_the_keys_proves_the_same_claims(model: str, run: str, keys: list[str], data: st.DataObject) -> None:
    signer = data.draw(st.sampled_from(keys))
    assert RelayTokens(keys).check(RelayTokens([signer]).make(model, run)) == Claims(model, run)


@given(st.tuples(MODEL_IDS, RUNS), st.tuples(MODEL_IDS, RUNS), KEYS)
def test_one_runs_proof_is_no_other_runs(one: tuple[str, str], other: tuple[str, str], key: str) -> None:
    tokens = RelayTokens([key])
    proof = tokens.make(*one).rpartition(".")[2]
    forged = f"{tokens.make(*other).rpartition('.')[0]}.{proof}"
    assert tokens.check(forged) == (Claims(*other) if one == other else None)


@given(MODEL_IDS, RUNS, KEYS, KEYS)
def test_another_key_proves_nothing(model: str, run: str, key: str, another: str) -> None:
    assert (RelayTokens([another]).check(RelayTokens([key]).make(model, run)) is None) == (key != another)


@given(MODEL_IDS, RUNS, KEYS, st.data())
def test_a_token_that_was_changed_anywhere_never_speaks_for_another(
    model: str, run: str, key: str, data: st.DataObject
) -> None:
    token = RelayTokens([key]).make(model, run)
    place = data.draw(st.integers(0, len(token)))
    cut = data.draw(st.integers(0, 3))
    changed = token[:place] + data.draw(st.text(max_size=3)) + token[place + cut :]
    assert RelayTokens([key]).check(changed) in ((Claims(model, run),) if changed == token else (None,))


@given(st.text(max_size=250), KEYS)
def test_no_text_is_a_token_that_nobody_signed(text: str, key: str) -> None:
    assert RelayTokens([key]).check(text) is None
