"""training_common.secret_forms: a known secret is found in every form that another program may give it."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training_common.redaction import redact
from training_common.secret_forms import hide

KEY = "Ab+/9=&<k\\e'y\"-0123~xyz"
ENTITIES = "".join(f"&#{ord(character)};" for character in KEY)

FORMS = {
    "as it is": KEY,
    "in lower case": KEY.lower(),
    "JSON": json.dumps(KEY)[1:-1],
    "JSON of .NET": "".join(c if c.isalnum() else f"\\u{ord(c):04X}" for c in KEY),
    "JSON, every character": "".join(f"\\u{ord(c):04x}" for c in KEY),
    "JSON with escaped slashes": json.dumps(KEY)[1:-1].replace("/", "\\/"),
    "JSON in JSON": json.dumps(json.dumps(KEY))[1:-1],
    "a Python string": "".join(f"\\x{ord(c):02x}" for c in KEY),
    "a Python string of more than a page": "".join(f"\\U{ord(c):08x}" for c in KEY),
    "braces": "".join(f"\\u{{{ord(c):x}}}" for c in KEY),
    "escape() of JavaScript": "".join(f"%u{ord(c):04X}" for c in KEY),
    "octal": "".join(f"\\{ord(c):03o}" for c in KEY),
    "URL": quote(KEY, safe=""),
    "URL, lower case": quote(KEY, safe="").replace("%2B", "%2b"),
    "URL, every character": "".join(f"%{ord(c):02X}" for c in KEY),
    "URL, twice": quote(quote(KEY, safe=""), safe=""),
    "HTML": html.escape(KEY),
    "HTML, decimal": ENTITIES,
    "HTML, hexadecimal": "".join(f"&#x{ord(c):X};" for c in KEY),
    "HTML, named": KEY.replace("&", "&amp;").replace("+", "&plus;").replace("/", "&sol;").replace("=", "&equals;"),
    "HTML in JSON": json.dumps(html.escape(KEY))[1:-1],
    "JSON in a URL": quote("".join(c if c.isalnum() else f"\\u{ord(c):04X}" for c in KEY), safe=""),
    "hexadecimal": KEY.encode().hex(),
    "hexadecimal, upper case": KEY.encode().hex().upper(),
    "hexadecimal, in columns": KEY.encode().hex(" "),
    "broken into lines": f"{KEY[:7]}\r\n {KEY[7:14]}\n{KEY[14:]}",
    "with places to break at": "\u200b".join((KEY[:7], KEY[7:14], KEY[14:])),
    "its first half": KEY[: len(KEY) // 2 + 1],
    "its second half": KEY[len(KEY) // 2 - 1 :],
    "its middle": KEY[5:-5],
    "shortened JSON": "".join(f"\\u{ord(c):04x}" for c in KEY[:15]),
}
FORMS |= {
    f"base64 of {shown}, {kind}": encode(f"{before}{KEY}{after}".encode()).decode()
    for shown, before, after in (
        ("the key", "", ""),
        ("the header", "Bearer ", ""),
        ("user and password", "user:", ""),
        ("a header of some length", "x-api-key: ", "\r\nHost: a"),
        ("a JSON object", '{"k":"', '"}'),
    )
    for kind, encode in (("standard", base64.b64encode), ("for URLs", base64.urlsafe_b64encode))
}
FORMS["base64 of the header, escaped"] = quote(base64.b64encode(f"Bearer {KEY}".encode()), safe="")
FORMS["base64 of the header, unpadded"] = base64.b64encode(f"Bearer {KEY}".encode()).decode().rstrip("=")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("around", ["{}", "before {} after", "'{}'", "[{}]", "Bearer {}, and twice: {}", "ü𝄞İ{}ß"])
def test_the_secret_is_gone_in_whatever_form_it_stands_there(form: str, around: str) -> None:
    spelt = FORMS[form]

    clean = hide(around.format(*[spelt] * 2), KEY)

    assert spelt not in clean
    assert clean.count("[redacted]") == around.count("{}")
    left, right = around.split("{}", 1)[0], around.rsplit("{}", 1)[1]
    assert clean.startswith(left)
    assert clean.endswith(right)
    assert hide(clean, KEY) == clean


@pytest.mark.parametrize("key", ["k1", "abc", "a+b", "Zz9/", "12345"])
def test_a_short_secret_goes_where_it_stands_by_itself_and_eats_no_words(key: str) -> None:
    assert hide(f"you sent '{key}', Bearer {key}.", key) == "you sent '[redacted]', Bearer [redacted]."
    escaped = "".join(f"\\u{ord(c):04x}" for c in key)
    assert hide(f'{{"key":"{escaped}"}}', key) == '{"key":"[redacted]"}'
    assert hide(f"key={quote(key, safe='')}&x", key) == "key=[redacted]&x"
    whole = f"x{key}y"
    assert hide(whole, key) == whole


@pytest.mark.parametrize("key", ["a1b2", "12345", "Zz9/"])
def test_a_short_secret_is_found_in_the_base64_of_its_header(key: str) -> None:
    coded = base64.b64encode(f"Bearer {key}".encode()).decode()

    assert coded not in hide(f"Authorization was {coded}", key)


def test_less_than_half_of_a_secret_and_other_words_are_left_alone() -> None:
    key = "0123456789abcdef" * 2

    for text in (key[:12], "deadbeef", "0123", "100 % of \\n &c; &amp; %zz \\u12", "a" * 10_000):
        assert hide(text, key) == text


@given(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=6, max_size=64),
    st.text(max_size=30),
    st.text(max_size=30),
    st.lists(st.sampled_from(["json", "url", "html", "plain"]), max_size=3),
)
def test_any_key_is_gone_from_any_text_after_any_few_escapes(key: str, left: str, right: str, steps: list[str]) -> None:
    text = left + key + right
    for step in steps:
        if step == "json":
            text = json.dumps(text)[1:-1]
        elif step == "url":
            text = quote(text, safe="", errors="replace")
        elif step == "html":
            text = html.escape(text)

    clean = hide(text, key)

    undone = clean
    for step in reversed(steps):
        if step == "json":
            undone = undone.replace("\\\\", "\\")
        elif step == "html":
            undone = html.unescape(undone)
    assert key not in clean
    if key not in "[redacted]":
        assert key not in undone.replace("[redacted]", "\0")


def test_log_lines_and_sentences_hide_all_forms() -> None:
    assert redact(f"the portal said: {FORMS['JSON of .NET']}", [KEY]) == "the portal said: [redacted]"
