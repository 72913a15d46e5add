"""Who has which place: exactly by weight, and no user moves who need not."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inflight_operator.decide.stickiness import PLACES, Run, decide
from inflight_operator.decide.weights import share

Names = st.lists(st.sampled_from("abcde"), min_size=1, max_size=5, unique=True)


@st.composite
def weights(draw: st.DrawFn) -> dict[str, int]:
    names = draw(Names)
    return share(PLACES, {name: draw(st.integers(0 if name != names[0] else 1, 50)) for name in names})


def laid_out(runs: Sequence[Run]) -> list[str]:
    return [name for name, count in runs for _ in range(count)]


@pytest.mark.parametrize(
    ("before", "wanted", "after"),
    [
        pytest.param((), {"a": 95, "b": 5}, (("a", 95), ("b", 5)), id="at first in their order"),
        pytest.param((("a", 95), ("b", 5)), {"a": 90, "b": 10}, (("a", 90), ("b", 10)), id="five move"),
        pytest.param(
            (("a", 90), ("b", 10)), {"b": 10, "a": 90}, (("a", 90), ("b", 10)), id="their order means nothing"
        ),
        pytest.param((("a", 90), ("b", 10)), {"a": 100, "b": 0}, (("a", 100),), id="one has no weight"),
        pytest.param((("a", 100),), {"a": 90, "b": 10}, (("a", 90), ("b", 10)), id="and has it again"),
        pytest.param(
            (("a", 50), ("b", 30), ("c", 20)),
            {"a": 40, "b": 30, "c": 30},
            (("a", 40), ("c", 10), ("b", 30), ("c", 20)),
            id="who keeps his weight keeps his users",
        ),
        pytest.param((("a", 50), ("b", 50)), {"a": 60, "c": 40}, (("a", 50), ("a", 10), ("c", 40)), id="one is gone"),
        pytest.param(
            (("a", 60), ("b", 40)), {"a": 0, "b": 0}, (("a", 60), ("b", 40)), id="nobody is served: as it was"
        ),
        pytest.param((("a", 60), ("b", 30)), {"a": 50, "b": 50}, (("a", 50), ("b", 50)), id="a status that was edited"),
    ],
)
def test_places(before: Sequence[Run], wanted: dict[str, int], after: Sequence[Run]) -> None:
    assert laid_out(decide(before, wanted)) == laid_out(after)


@given(changes=st.lists(weights(), min_size=1, max_size=8))
def test_every_variant_has_its_weight_and_no_more_places_than_needed_change_hands(
    changes: list[dict[str, int]],
) -> None:
    runs: tuple[Run, ...] = ()
    for wanted in changes:
        before, runs = laid_out(runs), decide(runs, wanted)
        after = laid_out(runs)
        assert Counter(after) == Counter({name: weight for name, weight in wanted.items() if weight})
        assert len(runs) <= PLACES
        assert all(a[0] != b[0] for a, b in itertools.pairwise(runs)), "neighbours are one run"
        assert decide(runs, wanted) == runs
        if before:
            had = Counter(before)
            moved = sum(a != b for a, b in zip(before, after, strict=True))
            assert moved == sum(max(0, had[name] - wanted.get(name, 0)) for name in had)
