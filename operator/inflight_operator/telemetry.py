"""The operator's metrics and its log format. Counts and durations are metrics, not log lines."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

WRITES: Final = Counter("inflight_operator_writes", "Writes to the API server that succeeded.", ["verb", "kind"])
RECONCILE_SECONDS: Final = Histogram(
    "inflight_operator_reconcile_seconds",
    "Duration of one reconcile of one ModelDeployment.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
RECONCILE_ERRORS: Final = Counter("inflight_operator_reconcile_errors", "Reconciles that failed.", ["kind"])
DEMAND: Final = Gauge(
    "inflight_operator_demand", "In-flight requests that the HPA is told.", ["namespace", "name", "variant"]
)
DESIRED_REPLICAS: Final = Gauge(
    "inflight_operator_desired_replicas", "Replicas asked for.", ["namespace", "name", "variant"]
)
LEADING: Final = Gauge("inflight_operator_leading", "1 where this operator leads, 0 where it waits to.")

ConditionLabels = tuple[str, str, str, str, str]
"""namespace, name, type, status, reason."""


@contextmanager
def exposing(conditions: Callable[[], Iterable[ConditionLabels]]) -> Iterator[None]:
    """While the block runs a scrape reads conditions where they are true: none outlives its ModelDeployment."""
    collector = _Conditions(conditions)
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)


class _Conditions(Collector):
    def __init__(self, conditions: Callable[[], Iterable[ConditionLabels]]) -> None:
        self._conditions = conditions

    def collect(self) -> Iterable[GaugeMetricFamily]:
        text = "1 for each condition of each ModelDeployment, with the status and the reason that it has now."
        labels = ("namespace", "name", "type", "status", "reason")
        family = GaugeMetricFamily("inflight_operator_condition", text, labels=labels)
        for condition in self._conditions():
            family.add_metric(condition, 1)
        yield family


def step_down() -> None:
    """Another operator leads: what this one has said of ModelDeployments is no longer so."""
    LEADING.set(0)
    DEMAND.clear()
    DESIRED_REPLICAS.clear()


def forget(namespace: str, name: str, variant: str) -> None:
    """Drop the series of a variant that is gone."""
    for gauge in (DEMAND, DESIRED_REPLICAS):
        if (namespace, name, variant) in gauge._metrics:
            gauge.remove(namespace, name, variant)


def configure_logging(level: str = "INFO") -> None:
    """One JSON object a line, on stdout, from our own code and from the libraries alike."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processor=structlog.processors.JSONRenderer())
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # kopf tells each event at INFO; what we do with it is what people look for.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
