"""The load reporting service: a stream per router into `load`. Knows no ModelDeployment."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import grpc
from envoy.service.load_stats.v3 import lrs_pb2
from google.protobuf.duration_pb2 import Duration

from .load import REPORT_SECONDS, Load, Report
from .model import Endpoint

log = logging.getLogger(__name__)


class LoadReporting:
    """Asks each router for a report of all clusters, by endpoint, every REPORT_SECONDS."""

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
        requests: AsyncIterator[lrs_pb2.LoadStatsRequest],
        _context: grpc.aio.ServicerContext[lrs_pb2.LoadStatsRequest, lrs_pb2.LoadStatsResponse],
    ) -> AsyncIterator[lrs_pb2.LoadStatsResponse]:
        """The first message is a greeting, each later one covers a whole interval."""
        node, window = "", None
        try:
            async for request in requests:
                if window is None:
                    node = request.node.id
                    window = self._load.opened(node)
                    log.info("router %s reports its load", node)
                    yield lrs_pb2.LoadStatsResponse(
                        send_all_clusters=True,
                        load_reporting_interval=Duration(seconds=REPORT_SECONDS),
                        report_endpoint_granularity=True,
                    )
                else:
                    self._load.report(window, parse(request))
        finally:
            if window is not None:
                self._load.closed(node, window)
                log.info("router %s no longer reports its load", node)


def parse(request: lrs_pb2.LoadStatsRequest) -> Report:
    """What is in progress; the control plane's own cluster is in the reports too, unasked for and harmless."""
    total: dict[str, int] = {}
    by_endpoint: dict[str, dict[Endpoint, int]] = {}
    for cluster in request.cluster_stats:
        for locality in cluster.upstream_locality_stats:
            if not locality.total_requests_in_progress:
                continue
            name = cluster.cluster_name
            total[name] = total.get(name, 0) + locality.total_requests_in_progress
            counts = by_endpoint.setdefault(name, {})
            for stats in locality.upstream_endpoint_stats:
                address = stats.address.socket_address
                endpoint = Endpoint(address.address, address.port_value)
                counts[endpoint] = counts.get(endpoint, 0) + stats.total_requests_in_progress
    return Report(total, by_endpoint)
