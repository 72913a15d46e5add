"""Keys are read again and again, kept when they can't be, and forgotten when nobody needs them. Time is faked."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import pytest

from inflight_operator.api.jwks import Keys
from inflight_operator.errors import TransientError
from inflight_operator.keyring import KeyRing, pause

pytestmark = [pytest.mark.looptime, pytest.mark.asyncio]

DIGITS, OTHER = ("demo", "digits"), ("demo", "other")
A, B = "https://a.example/keys", "https://b.example/keys"


class Issuers:
    """What issuers show at each URL; None: nothing, for ever. Counts who was asked."""

    def __init__(self, **shown: str | None) -> None:
        self.shown = shown
        self.asked: Counter[str] = Counter()
        self.changed: list[tuple[str, str]] = []
        self.ring = KeyRing(self.read, self.changed.append)

    async def read(self, source: str) -> Keys:
        self.asked[source] += 1
        shown = self.shown.get(source[8], "")
        if shown is None:
            await asyncio.sleep(1e9)
        if not shown:
            raise TransientError(f"{source} is down")
        return Keys(shown)

    async def run(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ring.run(), seconds)

    def known(self, source: str) -> str | None:
        keys = self.ring.known(source)
        return keys and keys.keys


@pytest.mark.parametrize(("failures", "seconds"), [(0, 300), (1, 5), (2, 10), (6, 160), (7, 300), (60, 300)])
async def test_what_fails_is_tried_again_soon_and_then_less_often(failures: int, seconds: float) -> None:
    assert pause(failures) == seconds


async def test_keys_are_read_when_they_are_needed_and_told_to_those_who_need_them() -> None:
    issuers = Issuers(a="one")
    issuers.ring.need(DIGITS, frozenset({A}))
    assert issuers.ring.missing({A}) == [f"{A} has not been read yet"]
    await issuers.run(1)
    assert (issuers.known(A), issuers.changed, issuers.asked) == ("one", [DIGITS], {A: 1})
    assert issuers.ring.missing({A}) == []


async def test_two_who_need_the_same_keys_share_them() -> None:
    issuers = Issuers(a="one")
    for key in (DIGITS, OTHER):
        issuers.ring.need(key, frozenset({A}))
    await issuers.run(1)
    assert (issuers.asked, issuers.changed) == ({A: 1}, [DIGITS, OTHER])


async def test_new_keys_are_found_within_five_minutes_and_the_same_ones_tell_nobody() -> None:
    issuers = Issuers(a="one")
    issuers.ring.need(DIGITS, frozenset({A}))
    task = asyncio.create_task(issuers.run(1000))
    await asyncio.sleep(400)
    assert (issuers.asked[A], issuers.changed) == (2, [DIGITS])
    issuers.shown["a"] = "two"
    await asyncio.sleep(300)
    assert (issuers.known(A), issuers.changed) == ("two", [DIGITS, DIGITS])
    await task


async def test_the_last_keys_stay_while_their_issuer_is_down_and_nobody_misses_any() -> None:
    """Seen failing when a failed read forgets them."""
    issuers = Issuers(a="one")
    issuers.ring.need(DIGITS, frozenset({A}))
    task = asyncio.create_task(issuers.run(10_000))
    await asyncio.sleep(1)
    issuers.shown["a"] = ""
    await asyncio.sleep(5000)
    assert issuers.asked[A] > 10
    assert (issuers.known(A), issuers.ring.missing({A})) == ("one", [])
    issuers.shown["a"] = "two"
    await asyncio.sleep(300)
    assert issuers.known(A) == "two"
    await task


async def test_why_there_are_no_keys_is_told_once_and_taken_back() -> None:
    issuers = Issuers()
    issuers.ring.need(DIGITS, frozenset({A}))
    task = asyncio.create_task(issuers.run(100))
    await asyncio.sleep(30)
    assert (issuers.ring.missing({A}), issuers.changed) == ([f"{A} is down"], [DIGITS])
    issuers.shown["a"] = "one"
    await task
    assert (issuers.ring.missing({A}), issuers.changed) == ([], [DIGITS, DIGITS])


async def test_one_that_never_answers_holds_up_nobody_else() -> None:
    issuers = Issuers(a=None, b="theirs")
    issuers.ring.need(DIGITS, frozenset({A}))
    issuers.ring.need(OTHER, frozenset({B}))
    await issuers.run(1)
    assert (issuers.known(A), issuers.known(B)) == (None, "theirs")


async def test_what_nobody_needs_any_more_is_neither_read_nor_kept() -> None:
    issuers = Issuers(a="one", b="two")
    issuers.ring.need(DIGITS, frozenset({A}))
    task = asyncio.create_task(issuers.run(2000))
    await asyncio.sleep(1)
    issuers.ring.need(DIGITS, frozenset({B}))
    await asyncio.sleep(1)
    issuers.ring.need(DIGITS, frozenset())
    await task
    assert (issuers.asked, issuers.known(A), issuers.known(B)) == ({A: 1, B: 1}, None, None)


async def test_a_start_waits_for_the_keys_but_not_for_ever() -> None:
    issuers = Issuers(a="one", b=None)
    began = asyncio.get_running_loop().time()
    await issuers.ring.prime({A, B}, 5)
    assert asyncio.get_running_loop().time() - began == 5
    assert (issuers.known(A), issuers.known(B)) == ("one", None)
    await issuers.ring.prime(set(), 5)
