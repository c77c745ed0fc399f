"""dispatcher.relay.tokens: whom a token is for, and what is none."""

from __future__ import annotations

import pytest

from dispatcher.relay.tokens import Claims, RelayTokens, claimed, keys_from

KEY, OLD = "k" * 32, "o" * 32
RUN = "20261123t080000-1a2b3c4d"


@pytest.mark.parametrize("model", ["1", "70fb5fb0-9b8a-4b9f-9f6f-2cc4e7b11de8", "a" * 57])
def test_a_token_says_its_model_and_run(model: str) -> None:
    token = RelayTokens([KEY]).make(model, RUN)
    assert token.startswith(f"v1.{model}.{RUN}.")
    assert RelayTokens([KEY]).check(token) == Claims(model, RUN)
    assert "\n" not in token


@pytest.mark.parametrize(
    ("model", "run"),
    [
        *((model, RUN) for model in ("", "a.b", "A", "a/b", "a--b", "ä", "a" * 58, "-")),
        *(("1", run) for run in ("", "a.b", "a b", "a\n", "-a", "r" * 65, "٣")),
    ],
)
def test_no_token_is_made_for_an_id_that_could_be_read_in_two_ways(model: str, run: str) -> None:
    with pytest.raises(ValueError, match="no token can name"):
        RelayTokens([KEY]).make(model, run)


def test_a_key_that_is_rotated_signs_first_and_the_old_one_is_accepted_until_it_goes() -> None:
    before = RelayTokens([OLD]).make("1", RUN)
    both = RelayTokens([KEY, OLD])
    assert both.check(before) == Claims("1", RUN)
    assert RelayTokens([KEY]).check(both.make("1", RUN)) == Claims("1", RUN)
    assert RelayTokens([KEY]).check(before) is None
    assert claimed(before) == Claims("1", RUN)


def test_without_a_key_no_token_is_made_and_none_is_good() -> None:
    with pytest.raises(ValueError, match="RELAY_KEY or API_KEY"):
        RelayTokens([]).make("1", RUN)
    assert RelayTokens([]).check(RelayTokens([KEY]).make("1", RUN)) is None
    assert RelayTokens([""]).check(RelayTokens([KEY]).make("1", RUN)) is None


def test_without_a_key_of_its_own_the_relay_has_one_that_is_not_the_portals_and_follows_from_it() -> None:
    [derived] = keys_from((), "the portal's key")
    assert "portal" not in derived
    assert keys_from((), "the portal's key") == (derived,)
    assert keys_from((), "another") != (derived,)
    assert keys_from((KEY, OLD), "the portal's key") == (KEY, OLD)
    assert keys_from((), "") == ()


def _good() -> str:
    return RelayTokens([KEY]).make("1", RUN)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "v1",
        "v1...",
        _good()[:-1],
        _good() + "0",
        _good().upper(),
        _good().replace("v1.", "v2.", 1),
        _good().replace(".1.", ".2.", 1),
        _good().replace(RUN, RUN[:-1] + "e"),
        _good() + "\n",
        " " + _good(),
        _good().replace("0", "٠"),
        "v1.1." + RUN + "." + "0" * 64,
        "v1.1." + RUN + ".x." + "0" * 64,
        "v1." + "9" * 100_000 + "." + RUN + "." + "0" * 64,
    ],
)
def test_what_was_not_signed_is_no_token(token: str) -> None:
    assert RelayTokens([KEY]).check(token) is None
