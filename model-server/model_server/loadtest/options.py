"""The options of `model-server loadtest`. Every value is checked here, before anything is sent."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from model_server.loadtest import plan
from model_server.loadtest.plan import Plan

PICTURES: Final = (".png", ".svg")
_EPILOG: Final = """\
examples:
  model-server loadtest http://127.0.0.1:8080/v2/models/digits --clients 1,5,20 --timeout 2 --output chart.png
  model-server loadtest https://host/predict --body '{"x": [1, 2]}' --header 'authorization: Bearer ...' --retry 0.1
  model-server loadtest --compare before.json after.json --output both.svg
"""

T = TypeVar("T")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; ends the process with a message when they are wrong."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.url is None and not (options.compare and options.output):
        parser.error("give a URL to test, or --compare and --output to draw earlier results")
    if options.within is None:
        options.within = options.timeout
    return options


def to_plan(options: argparse.Namespace) -> Plan:
    """What the options say about the clients."""
    retry = options.retry
    return Plan(options.clients, options.timeout, options.duration, options.within, retry, options.settle)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="model-server loadtest",
        description="Closed-loop clients: each asks, waits for the answer and asks again. For every number of clients "
        "it tells answers per second, response times, timeouts and refusals.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "url",
        metavar="URL",
        nargs="?",
        type=_kept(plan.checked_url),
        help="a V2 model or infer URL, a V1 predict URL, or any other",
    )
    _add_load(parser)
    add("--body", metavar="JSON|FILE", help="what is sent (default: one row, made from the model's V2 metadata)")
    add(
        "--header",
        metavar="'NAME: VALUE'",
        type=_kept(plan.header),
        action="append",
        default=[],
        help="may be repeated",
    )
    add("--no-deadline", action="store_true", help="don't tell V2 and V1 URLs the timeout (x-request-timeout-ms)")
    add("--label", metavar="TEXT", help="the name of this test in charts and results (default: the URL's host)")
    add(
        "--output", metavar="FILE", type=_kept(lambda t: plan.output_file(t, PICTURES)), help="draw a chart: .png, .svg"
    )
    add("--json", metavar="FILE", type=_kept(lambda t: plan.output_file(t, (".json",))), help="write all figures")
    add("--compare", metavar="FILE", nargs="+", default=[], help="earlier --json results, drawn before this one")
    return parser


def _add_load(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--clients", metavar="N,N,...", type=_kept(plan.counts), default="1,2,5,10,20,50", help="(%(default)s)")
    add("--timeout", metavar="S", type=_seconds(plan.TIMEOUT_MOST), default="2", help="of every request (%(default)s)")
    add("--duration", metavar="S", type=_seconds(plan.DURATION_MOST), default="30", help="of each stage (%(default)s)")
    add(
        "--within",
        metavar="S",
        type=_seconds(plan.TIMEOUT_MOST),
        help="also count goodput: answers within this time (default: the timeout)",
    )
    add(
        "--retry",
        metavar="after|S",
        type=_kept(_retry),
        default="after",
        help="when a refused client (429, 503) comes back: after what the refusal says, or so many seconds (after)",
    )
    add(
        "--settle",
        metavar="S",
        type=_seconds(plan.DURATION_MOST, 0),
        default="30",
        help="wait after each stage until a lone client is answered, at most so long; 0: don't (%(default)s)",
    )


def _kept(convert: Callable[[str], T]) -> Callable[[str], T]:
    """`convert`, with its ValueErrors as argparse shows them."""

    def converted(text: str) -> T:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return converted


def _seconds(most: float, least: float = 0.001) -> Callable[[str], float]:
    return _kept(lambda text: plan.seconds(text, most, least))


def _retry(text: str) -> float | None:
    return None if text == "after" else plan.seconds(text, plan.TIMEOUT_MOST, 0)
