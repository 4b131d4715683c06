from __future__ import annotations

import json

import pytest

from evodeploy.text import brief, json_text, left_out, one_line, printable, raised, reason


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, é, 猫, 🐈, %s {x}", "plain, é, 猫, 🐈, %s {x}"),
        ("two\nlines", "two\nlines"),
        ("\x1b[31mred\x1b]0;title\x07", r"\x1b[31mred\x1b]0;title\x07"),
        ("over\rwritten\ttab\x08\x7f", r"over\rwritten\ttab\x08\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("gnp.\u202eexe\u2066\u200f\u061c", r"gnp.\u202eexe\u2066\u200f\u061c"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("bytes \udcff, half \ud83d", r"bytes \udcff, half \ud83d"),
        ("", ""),
    ],
)
def test_what_a_terminal_acts_on_is_shown_as_an_escape(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown
    printable(text).encode()


def test_every_control_character_but_the_newline_is_escaped():
    controls = [chr(code) for code in [*range(0x20), *range(0x7F, 0xA0)] if chr(code) != "\n"]
    assert all(printable(character).startswith("\\") for character in controls)


def test_brief_is_one_line_of_bounded_length():
    assert brief("name\nError: not ours") == r"name\nError: not ours"
    assert brief("x" * 300) == "x" * 300
    assert brief("x" * 10**7) == "x" * 299 + "…"
    assert brief("\x1b" * 300) == (r"\x1b" * 75)[:299] + "…"
    assert brief("abcdef", 4) == "abc…"


def test_the_reason_of_a_failure_is_one_line_of_its_message():
    assert reason(ValueError("first\x07\nsecond\n")) == r"first\x07"
    assert reason(ValueError("first\nsecond\n"), -1) == "second"
    assert (reason(KeyError()), reason(ValueError(" \n"))) == ("KeyError", "ValueError")
    assert len(reason(ValueError("x" * 9999))) == 300


def test_the_line_of_a_runtime_is_the_first_that_says_something():
    places = "Exception from src/core.cpp:1:\nException from src/plugin.cpp:22:\n"
    assert reason(RuntimeError(f"{places}no memory\nmore")) == "no memory"
    assert reason(RuntimeError(places)) == "Exception from src/core.cpp:1:"
    assert one_line("\n \nfirst\nsecond", "none") == "first"
    assert one_line(" \n", "none") == one_line("", "none") == "none"


def test_what_was_raised_is_the_end_of_a_traceback_without_a_type_of_ours():
    trace = 'Traceback (most recent call last):\n  File "x", line 1\n'
    assert raised(f"{trace}evodeploy.errors.UsageError: --a: b\n") == "--a: b"
    assert raised(f"{trace}evodeploy.serving.controller.BusyError: busy") == "busy"
    assert raised(f"{trace}OSError: no space left") == "OSError: no space left"
    assert raised(" \n") == ""


def test_json_of_text_that_no_encoding_has_can_be_written():
    written = json_text({"path": "latin-\udce9.png", "plain": ["é 猫 🐈", r"\udce9", 1.5]}).encode()
    assert json.loads(written) == {"path": r"latin-\udce9.png", "plain": ["é 猫 🐈", r"\udce9", 1.5]}


def test_the_first_ten_of_what_was_left_out_are_named_and_the_others_counted():
    assert left_out([]) == []
    assert left_out(range(10)) == [f"left out: {each}" for each in range(10)]
    assert left_out(range(12)) == [*(f"left out: {each}" for each in range(10)), "left out: 2 more"]
