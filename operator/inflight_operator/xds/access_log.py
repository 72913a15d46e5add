"""What the router writes down of its requests: a line for each of its own failures, and a count of its refusals.

Pure: no clock, socket or log.
"""

from __future__ import annotations

from typing import Final

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import base_pb2, substitution_format_string_pb2
from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from envoy.extensions.access_loggers.stats.v3 import stats_pb2
from envoy.extensions.access_loggers.stream.v3 import stream_pb2
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import UInt64Value

from .wire import packed

CLIENT_LEFT: Final = "499"


def access_logs() -> list[accesslog_pb2.AccessLog]:
    """All of them."""
    return [_error_log(), *_refusals()]


def status(code: int, op: str) -> accesslog_pb2.StatusCodeFilter:
    """Requests whose status is (EQ), or is at least (GE), `code`."""
    comparison = accesslog_pb2.ComparisonFilter(
        op=accesslog_pb2.ComparisonFilter.Op.Value(op),
        value=base_pb2.RuntimeUInt32(default_value=code, runtime_key=f"inflight.status.{op.lower()}.{code}"),
    )
    return accesslog_pb2.StatusCodeFilter(comparison=comparison)


def _refusals() -> list[accesslog_pb2.AccessLog]:
    """Count the answers that are not a server's, by status and Envoy's reason, and the clients that left before theirs.

    Both are of few values: no name or path of anybody's is among them. Envoy's status of a client that left is 0.
    """
    own = cel_pb2.ExpressionFilter(expression='response.code_details != "via_upstream" && response.code >= 400')
    flagged = accesslog_pb2.AccessLogFilter(response_flag_filter=accesslog_pb2.ResponseFlagFilter())
    failed = accesslog_pb2.AccessLogFilter(status_code_filter=status(400, "GE"))
    either = accesslog_pb2.AccessLogFilter(or_filter=accesslog_pb2.OrFilter(filters=[failed, flagged]))
    ours = accesslog_pb2.AccessLogFilter(
        extension_filter=accesslog_pb2.ExtensionFilter(
            name="envoy.access_loggers.extension_filters.cel", typed_config=packed(own)
        )
    )
    left = accesslog_pb2.ResponseFlagFilter(flags=["DC"])
    unanswered = accesslog_pb2.AccessLogFilter(status_code_filter=status(0, "EQ"))
    gone = [accesslog_pb2.AccessLogFilter(response_flag_filter=left), unanswered]
    return [_counted([either, ours], "%RESPONSE_CODE%"), _counted(gone, CLIENT_LEFT)]


def _counted(when: list[accesslog_pb2.AccessLogFilter], status: str) -> accesslog_pb2.AccessLog:
    """Count in inflight.refused what all of these filters let through."""
    tags = [
        stats_pb2.Config.Tag(name="status", value_format=status),
        stats_pb2.Config.Tag(name="reason", value_format="%RESPONSE_FLAGS_LONG%"),
    ]
    counter = stats_pb2.Config.Counter(
        stat=stats_pb2.Config.Stat(name="refused", tags=tags), value_fixed=UInt64Value(value=1)
    )
    return accesslog_pb2.AccessLog(
        name="envoy.access_loggers.stats",
        filter=accesslog_pb2.AccessLogFilter(and_filter=accesslog_pb2.AndFilter(filters=when)),
        typed_config=packed(stats_pb2.Config(stat_prefix="inflight", counters=[counter])),
    )


def _error_log() -> accesslog_pb2.AccessLog:
    """One JSON line for each answer of 500 or more that the router had to make itself."""
    fields = Struct()
    fields.update(
        {
            "time": "%START_TIME%",
            "method": "%REQ(:METHOD)%",
            "host": "%REQ(:AUTHORITY)%",
            "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
            "status": "%RESPONSE_CODE%",
            "flags": "%RESPONSE_FLAGS%",
            "details": "%RESPONSE_CODE_DETAILS%",
            "milliseconds": "%DURATION%",
            "upstream": "%UPSTREAM_HOST%",
            "cluster": "%UPSTREAM_CLUSTER%",
            "request_id": "%REQ(X-REQUEST-ID)%",
        }
    )
    own = accesslog_pb2.AccessLogFilter(response_flag_filter=accesslog_pb2.ResponseFlagFilter())
    failed = accesslog_pb2.AccessLogFilter(status_code_filter=status(500, "GE"))
    return accesslog_pb2.AccessLog(
        name="envoy.access_loggers.stdout",
        filter=accesslog_pb2.AccessLogFilter(and_filter=accesslog_pb2.AndFilter(filters=[own, failed])),
        typed_config=packed(
            stream_pb2.StdoutAccessLog(
                log_format=substitution_format_string_pb2.SubstitutionFormatString(json_format=fields)
            )
        ),
    )
