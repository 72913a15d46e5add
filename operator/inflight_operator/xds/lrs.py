"""The load reporting service: a stream per router into `load`. Knows no ModelDeployment."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Collection

import grpc
from envoy.config.endpoint.v3 import load_report_pb2 as endpoint_load_pb2
from envoy.service.load_stats.v3 import lrs_pb2
from google.protobuf.duration_pb2 import Duration

from .clusters import counted_as
from .load import REPORT_SECONDS, Flow, Load, Report, Window
from .model import Endpoint

log = logging.getLogger(__name__)


ASK = lrs_pb2.LoadStatsResponse(
    send_all_clusters=True,
    load_reporting_interval=Duration(nanos=int(0.8 * REPORT_SECONDS * 1e9)),
    report_endpoint_granularity=True,
)
"""Shorter than the time to the next one, which would otherwise put off the report that it asks for."""

Requests = AsyncIterator[lrs_pb2.LoadStatsRequest]
Responses = AsyncIterator[lrs_pb2.LoadStatsResponse]


class LoadReporting:
    """Asks each router for a report of all clusters, by endpoint, every REPORT_SECONDS: all at the same instant.

    A router starts its interval when it is asked. Asked once, each would keep its own time, and a client that goes
    from one router to the other would be seen by both or by none.
    """

    def __init__(self, load: Load) -> None:
        self._load = load

    def handler(self) -> grpc.GenericRpcHandler:
        stream = grpc.stream_stream_rpc_method_handler(
            self.stream_load_stats,
            request_deserializer=lrs_pb2.LoadStatsRequest.FromString,
            response_serializer=lrs_pb2.LoadStatsResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(
            "envoy.service.load_stats.v3.LoadReportingService", {"StreamLoadStats": stream}
        )

    async def stream_load_stats(
        self,
        requests: Requests,
        _context: grpc.aio.ServicerContext[lrs_pb2.LoadStatsRequest, lrs_pb2.LoadStatsResponse],
    ) -> Responses:
        """The first message is a greeting, each later one a report."""
        messages = aiter(requests)
        greeting = await anext(messages, None)
        if greeting is None:
            return
        node, clock = greeting.node.id, asyncio.get_running_loop().time
        window = self._load.opened(node)
        log.info("router %s reports its load", node)
        reader = asyncio.create_task(self._read(messages, window))
        try:
            while not reader.done():
                yield ASK
                await asyncio.wait([reader], timeout=REPORT_SECONDS - clock() % REPORT_SECONDS)
            await reader
        finally:
            reader.cancel()
            self._load.closed(node, window)
            log.info("router %s no longer reports its load", node)

    async def _read(self, messages: Requests, window: Window) -> None:
        async for message in messages:
            self._load.report(window, parse(message, self._load.asked()))


def parse(request: lrs_pb2.LoadStatsRequest, asked: Collection[str] = ()) -> Report:
    """What is in progress, and of the clusters `asked` about also what was sent and answered; the control plane's own
    cluster is in the reports too, unasked for and harmless."""
    total: dict[str, int] = {}
    by_endpoint: dict[str, dict[Endpoint, int]] = {}
    flows: dict[str, dict[str, Flow]] = {}
    for cluster in request.cluster_stats:
        if asked and (backend := counted_as(cluster.cluster_name)) in asked:
            _add_flows(flows.setdefault(backend, {}), cluster)
        for locality in cluster.upstream_locality_stats:
            if not locality.total_requests_in_progress:
                continue
            name = sys.intern(counted_as(cluster.cluster_name))
            total[name] = total.get(name, 0) + locality.total_requests_in_progress
            counts = by_endpoint.setdefault(name, {})
            for stats in locality.upstream_endpoint_stats:
                address = stats.address.socket_address
                endpoint = Endpoint(address.address, address.port_value)
                counts[endpoint] = counts.get(endpoint, 0) + stats.total_requests_in_progress
    return Report(total, by_endpoint, flows)


def _add_flows(found: dict[str, Flow], cluster: endpoint_load_pb2.ClusterStats) -> None:
    for locality in cluster.upstream_locality_stats:
        for stats in locality.upstream_endpoint_stats:
            address = stats.address.socket_address.address
            sofar = found.get(address, Flow(0, 0, 0))
            found[address] = Flow(
                sofar.in_progress + stats.total_requests_in_progress,
                sofar.sent + stats.total_issued_requests,
                sofar.answered + stats.total_successful_requests + stats.total_error_requests,
            )
