"""Real traffic: the held-back images through the router at full speed, and an account of the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inflight_demo.console import Console
from inflight_demo.models import Digits
from inflight_probe.infer import output, request_body, sender, session, through
from inflight_probe.load import Outcome, Run, closed_loop
from inflight_probe.stats import percentile, shares

REQUESTS = 10_800
CLIENTS = 8
"""In flight at most: what one replica of either variant may hold (concurrency 2 + queue 8) is more."""
_SHADES = " .:-=+*#%@"


@dataclass(frozen=True)
class Score:
    """How one variant answered: how many, how many of them right, and how fast (ms)."""

    variant: str
    answers: int
    right: int
    p50: float
    p99: float

    def cells(self) -> tuple[object, ...]:
        """A row of the table of answers."""
        accuracy = f"{100 * self.right / self.answers:.1f} %"
        return self.variant, self.answers, self.right, accuracy, f"{self.p50:.1f}", f"{self.p99:.1f}"


async def send_images(router: str, namespace: str, name: str, digits: Digits, console: Console) -> Run:
    """Send every held-back image 20 times through the router; each must be answered with one digit."""
    bodies = [request_body("images", [image]) for image in digits.images]

    def read(_number: int, answer: Mapping[str, Any]) -> int:
        digit = int(output(answer))
        if digit not in range(10):
            raise ValueError(f"{digit} is no digit")
        return digit

    done = 0

    def seen(_outcome: Outcome) -> None:
        nonlocal done
        done += 1
        if done % 100 == 0:
            console.progress(done, REQUESTS, "images sent")

    async with session(CLIENTS) as http:
        send = sender(http, through(router, namespace, name), bodies, read)
        return await closed_loop(send, clients=CLIENTS, count=REQUESTS, seen=seen)


def scores(run: Run, labels: list[int]) -> list[Score]:
    """One score per variant that answered, in order of name."""
    found = []
    for variant in sorted(run.variants()):
        mine = [o for o in run.ok if o.reply.variant == variant]
        right = sum(o.reply.answer == labels[o.number % len(labels)] for o in mine)
        times = [1000 * o.seconds for o in mine]
        found.append(Score(variant, len(mine), right, percentile(times, 50), percentile(times, 99)))
    return found


def report(console: Console, run: Run, digits: Digits, weights: Mapping[str, int]) -> bool:
    """Print who answered, how right, how fast, and the split's verdict. True when all is as promised."""
    console.say(
        f"{len(run.ok):,} of {len(run.outcomes):,} answered in {run.elapsed:.1f} s ({run.rate:,.0f}/s, "
        f"{CLIENTS} in flight); failed: {len(run.failed)}"
    )
    for reason, count in run.why().most_common(5):
        console.say(f"  {count} × {reason}")
    console.say()
    console.show(
        ("variant", "answers", "right", "accuracy", "p50 ms", "p99 ms"),
        [s.cells() for s in scores(run, digits.labels)],
    )
    console.say()
    split = shares(run.variants(), weights)
    console.show(
        ("variant", "weight", "share", "off by", "verdict"),
        [
            (
                s.variant,
                f"{s.weight} %",
                f"{s.observed:.2f} %",
                f"{s.sigmas:.1f} sigma",
                "as weighted" if s.within() else "NOT as weighted (more than 4 sigma)",
            )
            for s in split
        ],
    )
    console.say()
    for line in hardest(run, digits):
        console.say(line)
    return not run.failed and all(share.within() for share in split)


def hardest(run: Run, digits: Digits) -> list[str]:
    """The image that was misread most often, drawn, with what each variant says it is."""
    size = len(digits.labels)
    wrong = Counter(o.number % size for o in run.ok if o.reply.answer != digits.labels[o.number % size])
    if not wrong:
        return ["Every image was read right by every variant."]
    image, _ = wrong.most_common(1)[0]
    said = {o.reply.variant: o.reply.answer for o in run.ok if o.number % size == image}
    drawn = ["".join(2 * _shade(p) for p in digits.images[image][row : row + 8]) for row in range(0, 64, 8)]
    beside = [f"Misread most often: image {image}, a {digits.labels[image]}."]
    beside += [f"{variant} says {answer}" for variant, answer in sorted(said.items())]
    return [f"{line}   {beside[i] if i < len(beside) else ''}".rstrip() or " " for i, line in enumerate(drawn)]


def _shade(pixel: float) -> str:
    return _SHADES[min(int(pixel * len(_SHADES) / 17), len(_SHADES) - 1)]
