"""The weights of splits as Envoy's runtime: one small resource with the weights of all ModelDeployments.

All routes are one resource, which takes a router longer to read the more ModelDeployments there are. Weights change far
more often than anything else of a route (a canary's steps, capacity that comes and goes), so routers take them from
here (RTDS; docs/adr/0023). In the routes they are also, for a router that has no such layer and for the last known good
files. A weight is bound to the version of the routes that it is for: new weights never meet old routes.

Pure. A piece is the bytes of a google.protobuf.Struct that holds one ModelDeployment's weights; pieces concatenate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from envoy.config.route.v3 import route_components_pb2
from envoy.service.runtime.v3 import rtds_pb2
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import UInt32Value

from .wire import RUNTIME, Resource, digest, field, head, wrapped

LAYER: Final = "inflight-weights"
"""The name of the layer in the chart's bootstrap.yaml."""


def taken_by(metadata: Struct) -> bool:
    """Whether a router has the layer, by what its bootstrap says of itself."""
    return "weights" in metadata.fields and metadata.fields["weights"].string_value == LAYER


def put(routes: Iterable[route_components_pb2.Route], version: str, weights: Mapping[str, int]) -> Struct:
    """Give the splits of these routes, that were made without, their weights by cluster; the same for the runtime.

    `version` is that of the routes without weights. Splits that have theirs, since places belong to users, keep them.
    """
    told = Struct()
    for route in routes:
        split = route.route.weighted_clusters
        if not split.clusters or split.clusters[0].HasField("weight"):
            continue
        split.runtime_key_prefix = version
        for cluster in split.clusters:
            cluster.weight.CopyFrom(UInt32Value(value=weights[cluster.name]))
            told.fields[f"{version}.{cluster.name}"].number_value = weights[cluster.name]
    return told


def layer(pieces: Iterable[bytes]) -> Resource:
    """The layer with all of these."""
    body = list(pieces)
    name = field(rtds_pb2.Runtime.NAME_FIELD_NUMBER, LAYER.encode())
    inner = head(rtds_pb2.Runtime.LAYER_FIELD_NUMBER, sum(map(len, body)))
    return wrapped(RUNTIME, LAYER, digest(*body), [name, inner, *body])
