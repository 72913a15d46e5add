"""The account of the traffic is of the answers: who, how right, how fast, how fair."""

import io

import pytest

from inflight_demo import digits
from inflight_demo.console import Console
from inflight_demo.models import Digits
from inflight_probe.load import Outcome, Reply, Run

THREE = Digits(images=[[0.0] * 64, [16.0] * 64, [8.0] * 64], labels=[3, 5, 7])


def answers(*said: tuple[str, int], status: int = 200) -> Run:
    outcomes = [
        Outcome(n, n, 0.002, Reply(status, "" if status == 200 else "queue_full", variant, "r", digit))
        for n, (variant, digit) in enumerate(said)
    ]
    return Run(outcomes, 2.0)


def printed(run: Run, weights: dict[str, int]) -> tuple[bool, str]:
    out = io.StringIO()
    return digits.report(Console(out), run, THREE, weights), out.getvalue()


def test_each_variant_is_scored_on_its_own_answers():
    run = answers(("stable", 3), ("stable", 5), ("candidate", 7), ("stable", 0), ("candidate", 5))
    candidate, stable = digits.scores(run, THREE.labels)
    assert (stable.variant, stable.answers, stable.right) == ("stable", 3, 2)
    assert (candidate.variant, candidate.answers, candidate.right) == ("candidate", 2, 2)
    assert stable.cells() == ("stable", 3, 2, "66.7 %", "2.0", "2.0")


@pytest.mark.parametrize(
    ("run", "weights", "fine", "said"),
    [
        pytest.param(answers(*[("a", 3), ("b", 5)] * 50), {"a": 50, "b": 50}, True, "as weighted", id="a fair split"),
        pytest.param(answers(*[("a", 3)] * 100), {"a": 50, "b": 50}, False, "NOT as weighted", id="one got all"),
        pytest.param(answers(("a", 3), ("b", 5), status=429), {"a": 100}, False, "2 × 429 queue_full", id="refused"),
    ],
)
def test_the_verdict_holds_only_when_nothing_failed_and_the_split_is_fair(run, weights, fine, said):
    verdict, text = printed(run, weights)
    assert verdict is fine
    assert said in text


def test_one_failure_among_right_answers_spoils_the_verdict():
    run = answers(*[("a", 3)] * 100)
    run.outcomes.append(Outcome(100, 0, 1, Reply(0, "ServerDisconnectedError")))
    verdict, text = printed(run, {"a": 100})
    assert not verdict
    assert "100 of 101 answered" in text
    assert "1 × no answer ServerDisconnectedError" in text


def test_the_image_misread_most_is_drawn_with_what_was_said():
    lines = digits.hardest(answers(("a", 3), ("a", 0), ("b", 7), ("a", 3), ("b", 1)), THREE)
    assert len(lines) == 8
    assert lines[0] == "@" * 16 + "   Misread most often: image 1, a 5."
    assert [line[19:] for line in lines[1:3]] == ["a says 0", "b says 1"]


def test_when_all_is_right_nothing_is_drawn():
    assert digits.hardest(answers(("a", 3), ("a", 5)), THREE) == ["Every image was read right by every variant."]


def test_every_image_is_sent_equally_often_and_never_more_than_a_replica_may_hold():
    assert digits.REQUESTS >= 10_000
    assert digits.REQUESTS % 540 == 0
    assert digits.CLIENTS <= 2 + 8
