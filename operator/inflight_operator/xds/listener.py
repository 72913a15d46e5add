"""The router's listeners: how a request gets in, and what the router says when it must answer itself.

Pure, and the same for every ModelDeployment. Every answer that the router makes itself is a problem (RFC 9457)
with a stable `code`, so that a client never has to read Envoy's own words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2, config_source_pb2, protocol_pb2, substitution_format_string_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from . import access_log, tokens
from .build import MAIN
from .choice import MIRRORED, STREAM_IDLE_SECONDS
from .wire import LISTENER, Resource, ads, packed, resource, socket_address

TLS = "inflight-tls"
"""The listener of those who come encrypted; MAIN is that of the others. Both lead to the same routes."""
REQUEST_HEADERS_SECONDS = 10
REQUEST_SECONDS = 30
"""How long a client may take to send a whole request; how long the answer takes is the route's timeout."""
CONNECTION_IDLE_SECONDS = 300
CONNECTION_BUFFER_BYTES = 32 * 1024
MAX_REQUEST_HEADERS_KIB = 60
MAX_CONCURRENT_STREAMS = 100
REFUSED_BY = "x-inflight-refused-by"
"""The header of every answer that no server gave; servers have it too, with their own word."""


@dataclass(frozen=True)
class Ports:
    """Where routers listen, and the file that tells them of their certificate (its form is Envoy's SDS)."""

    plain: int = 8080
    tls: int = 8443
    certificate: str = "/etc/inflight/sds-edge.yaml"


@dataclass(frozen=True)
class Answer:
    """What the router says when one of Envoy's `flags` is set, or else for its status `of` (that same `status`).

    `learned`: only where this is known of the request's token (`tokens.known`).
    """

    status: int
    code: str
    title: str
    detail: str
    flags: tuple[str, ...] = ()
    retry_after_seconds: int | None = None
    of: int | None = None
    learned: tuple[str, str] | None = None


_UNKNOWN = "The request has no valid token (%RESPONSE_CODE_DETAILS%)."
# The first that fits is sent. Retry-After is given where the request can't have been executed.
ANSWERS = (
    Answer(503, "overloaded", "Service Unavailable", "The router is at its limit.", ("UO", "OM"), 1),
    Answer(503, "no_ready_endpoint", "Service Unavailable", "No replica is ready.", ("UH", "NC"), 1),
    Answer(503, "connection_failed", "Service Unavailable", "No replica could be reached.", ("UF",), 1),
    Answer(502, "connection_lost", "Bad Gateway", "The replica closed the connection.", ("UC", "UR", "LR")),
    Answer(502, "bad_response", "Bad Gateway", "The replica's answer is not HTTP.", ("UPE",)),
    Answer(504, "deadline", "Gateway Timeout", "No answer within the model's timeout.", ("UT", "DT", "UMSDR")),
    Answer(404, "not_found", "Not Found", "There is nothing here.", ("NR",)),
    Answer(503, "no_ready_endpoint", "Service Unavailable", "No replica is ready.", (), 1),
    # More of a large body came between two tries than is kept for another one.
    Answer(503, "connection_failed", "Service Unavailable", "No replica could be reached.", (), 1, of=507),
    Answer(504, "deadline", "Gateway Timeout", "No answer within the model's timeout."),
    Answer(408, "request_timeout", "Request Timeout", "The request did not arrive in time."),
    Answer(413, "too_large", "Content Too Large", "The request is too large."),
    # Envoy says 403 for a token that is good elsewhere: it is as bad a token here as any other.
    Answer(401, "unauthenticated", "Unauthorized", _UNKNOWN, of=403, learned=(tokens.FAILED, "code")),
    Answer(401, "unauthenticated", "Unauthorized", _UNKNOWN),
    Answer(403, "forbidden", "Forbidden", "This caller may not do this."),
    Answer(431, "too_large", "Request Header Fields Too Large", "The request's headers are too large."),
    Answer(400, "bad_input", "Bad Request", "The request is not valid HTTP."),
)


def listeners(ports: Ports) -> list[Resource]:
    """The listeners that serve. The one on which changed routes are tried is in the chart's bootstrap.yaml."""
    return [_listener(MAIN, ports.plain, None), _listener(TLS, ports.tls, _encrypted(ports.certificate))]


def used_by(metadata: Struct) -> frozenset[str]:
    """The names of the listeners that a router is to have, by what its bootstrap says of itself (`router.tls` of the
    chart): a router without a certificate would refuse the listener that needs one."""
    tls = MessageToDict(metadata).get("tls") or {}
    if not tls.get("secretName"):
        return frozenset({MAIN})
    return frozenset({TLS} if tls.get("only") else {MAIN, TLS})


def _listener(name: str, port: int, transport: base_pb2.TransportSocket | None) -> Resource:
    manager = listener_components_pb2.Filter(
        name="envoy.filters.network.http_connection_manager", typed_config=packed(connection_manager(MAIN))
    )
    chain = listener_components_pb2.FilterChain(
        filters=[manager],
        transport_socket=transport,
        transport_socket_connect_timeout=Duration(seconds=REQUEST_HEADERS_SECONDS) if transport else None,
    )
    return resource(
        LISTENER,
        name,
        listener_pb2.Listener(
            name=name,
            address=socket_address("0.0.0.0", port),  # noqa: S104  # nosec B104 # a pod serves its network
            filter_chains=[chain],
            per_connection_buffer_limit_bytes=UInt32Value(value=CONNECTION_BUFFER_BYTES),
        ),
    )


def _encrypted(certificate: str) -> base_pb2.TransportSocket:
    """TLS of at least 1.2. The certificate is read anew by the router itself, as soon as its Secret changes."""
    source = config_source_pb2.ConfigSource(
        path_config_source=config_source_pb2.PathConfigSource(path=certificate),
        resource_api_version=config_source_pb2.V3,
    )
    context = tls_pb2.DownstreamTlsContext(
        common_tls_context=tls_pb2.CommonTlsContext(
            tls_params=common_pb2.TlsParameters(tls_minimum_protocol_version=common_pb2.TlsParameters.TLSv1_2),
            tls_certificate_sds_secret_configs=[secret_pb2.SdsSecretConfig(name="edge", sds_config=source)],
            alpn_protocols=["h2", "http/1.1"],
        )
    )
    return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))


def connection_manager(name: str) -> hcm_pb2.HttpConnectionManager:
    """The HTTP rules of Envoy's guide for edges: the client is never trusted, wherever it comes from."""
    return hcm_pb2.HttpConnectionManager(
        codec_type=hcm_pb2.HttpConnectionManager.AUTO,
        stat_prefix=name,
        rds=hcm_pb2.Rds(config_source=ads(), route_config_name=name),
        http_filters=[
            hcm_pb2.HttpFilter(name="inflight.strip", typed_config=packed(_strip_envoy_headers())),
            tokens.slot(),
            hcm_pb2.HttpFilter(name="envoy.filters.http.router", typed_config=packed(router_pb2.Router())),
        ],
        use_remote_address=BoolValue(value=True),
        internal_address_config=hcm_pb2.HttpConnectionManager.InternalAddressConfig(),
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(
            idle_timeout=Duration(seconds=CONNECTION_IDLE_SECONDS),
            headers_with_underscores_action=protocol_pb2.HttpProtocolOptions.REJECT_REQUEST,
        ),
        http2_protocol_options=protocol_pb2.Http2ProtocolOptions(
            max_concurrent_streams=UInt32Value(value=MAX_CONCURRENT_STREAMS),
            initial_stream_window_size=UInt32Value(value=64 * 1024),
            initial_connection_window_size=UInt32Value(value=1024 * 1024),
        ),
        max_request_headers_kb=UInt32Value(value=MAX_REQUEST_HEADERS_KIB),
        request_headers_timeout=Duration(seconds=REQUEST_HEADERS_SECONDS),
        request_timeout=Duration(seconds=REQUEST_SECONDS),
        stream_idle_timeout=Duration(seconds=STREAM_IDLE_SECONDS),
        server_header_transformation=hcm_pb2.HttpConnectionManager.PASS_THROUGH,
        preserve_external_request_id=True,
        normalize_path=BoolValue(value=True),
        merge_slashes=True,
        path_with_escaped_slashes_action=hcm_pb2.HttpConnectionManager.REJECT_REQUEST,
        strip_trailing_host_dot=True,
        local_reply_config=local_replies(),
        access_log=access_log.access_logs(),
    )


def _strip_envoy_headers() -> header_mutation_pb2.HeaderMutation:
    """A client can't steer the router (x-envoy-retry-on ...), see what the router tells itself, nor pass a request off
    as a copy that counts for nothing."""
    ours = mutation_rules_pb2.HeaderMutation(
        remove_on_match=mutation_rules_pb2.HeaderMutation.RemoveOnMatch(
            key_matcher=string_pb2.StringMatcher(prefix="x-envoy-")
        )
    )
    return header_mutation_pb2.HeaderMutation(
        mutations=header_mutation_pb2.Mutations(
            request_mutations=[ours, mutation_rules_pb2.HeaderMutation(remove=MIRRORED)], response_mutations=[ours]
        )
    )


def local_replies() -> hcm_pb2.LocalReplyConfig:
    """Problems for all that Envoy answers itself; other statuses than those in ANSWERS get a plain one."""
    return hcm_pb2.LocalReplyConfig(
        mappers=[*(_mapper(answer) for answer in ANSWERS), _others()],
        body_format=_format("about:blank", "Error", "%RESPONSE_CODE%", "The router refused it.", "refused"),
    )


def _mapper(answer: Answer) -> hcm_pb2.ResponseMapper:
    if answer.flags:
        when = accesslog_pb2.AccessLogFilter(response_flag_filter=accesslog_pb2.ResponseFlagFilter(flags=answer.flags))
    else:
        when = accesslog_pb2.AccessLogFilter(status_code_filter=access_log.status(answer.of or answer.status, "EQ"))
    if answer.learned:
        told = accesslog_pb2.MetadataFilter(
            matcher=tokens.known(*answer.learned), match_if_key_not_found=BoolValue(value=False)
        )
        both = [when, accesslog_pb2.AccessLogFilter(metadata_filter=told)]
        when = accesslog_pb2.AccessLogFilter(and_filter=accesslog_pb2.AndFilter(filters=both))
    after = answer.retry_after_seconds
    hints: dict[str, int | str] = {REFUSED_BY: "router"}
    if after is not None:
        hints |= {"retry-after": after, "x-inflight-retry-after-ms": after * 1000}
    return hcm_pb2.ResponseMapper(
        filter=when,
        status_code=UInt32Value(value=answer.status),
        body_format_override=_format("about:blank", answer.title, str(answer.status), answer.detail, answer.code),
        headers_to_add=_headers(hints),
    )


def _others() -> hcm_pb2.ResponseMapper:
    """Statuses that ANSWERS does not have."""
    return hcm_pb2.ResponseMapper(
        filter=accesslog_pb2.AccessLogFilter(status_code_filter=access_log.status(400, "GE")),
        headers_to_add=_headers({REFUSED_BY: "router"}),
    )


def _headers(values: Mapping[str, int | str]) -> list[base_pb2.HeaderValueOption]:
    return [
        base_pb2.HeaderValueOption(
            header=base_pb2.HeaderValue(key=key, value=str(value)),
            append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
        )
        for key, value in values.items()
    ]


def _format(
    kind: str, title: str, status: str, detail: str, code: str
) -> substitution_format_string_pb2.SubstitutionFormatString:
    text = json.dumps({"type": kind, "title": title, "status": 0, "detail": detail, "error": detail, "code": code})
    body = text.replace('"status": 0', f'"status": {status}')
    return substitution_format_string_pb2.SubstitutionFormatString(
        text_format_source=base_pb2.DataSource(inline_string=body + "\n"),
        content_type="application/problem+json",
    )
