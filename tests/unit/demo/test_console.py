"""What the demo prints can be read: aligned tables, progress without terminal codes in a log."""

import io

import pytest

from inflight_demo.console import Console, clock, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_numbers_stand_to_the_right_and_words_to_the_left():
    assert table(["variant", "answers"], [["stable", 9_500], ["candidate", "500"]]) == [
        "variant    answers",
        "stable        9500",
        "candidate      500",
    ]


def test_a_table_without_rows_is_its_header():
    assert table(["a", "bb"], []) == ["a  bb"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (99.94, "99.9 s"), (125, "2 min 05 s"), (3600, "60 min 00 s")]
)
def test_times_read_like_a_person_says_them(seconds, text):
    assert clock(seconds) == text


def test_progress_in_a_log_is_four_lines():
    out = io.StringIO()
    console = Console(out)
    for done in range(1, 1001):
        console.progress(done, 1000, "images")
    lines = out.getvalue().splitlines()
    assert [line.strip() for line in lines] == [
        "250 of 1,000 images",
        "500 of 1,000 images",
        "750 of 1,000 images",
        "1,000 of 1,000 images",
    ]
    assert "\r" not in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_progress_on_a_terminal_is_one_line_that_ends():
    out = Terminal()
    console = Console(out)
    for done in range(1, 11):
        console.progress(done, 10, "images")
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().endswith("10 of 10 images\x1b[K\n")


def test_a_second_progress_starts_anew():
    out = io.StringIO()
    console = Console(out)
    for _ in range(2):
        console.progress(4, 4, "files")
    assert out.getvalue().count("4 of 4 files") == 2


def test_steps_are_numbered_and_timed():
    out = io.StringIO()
    console = Console(out, total=2)
    with console.step("Cluster"):
        console.say("up")
    with pytest.raises(RuntimeError), console.step("Images"):
        raise RuntimeError("no space left")
    text = out.getvalue()
    assert "[1/2] Cluster\n    up\n    done in 0.0 s" in text
    assert "[2/2] Images\n    failed after 0.0 s" in text
