"""custom.metrics.k8s.io: tells HPAs the in-flight requests of a Deployment, as the operator computes them.

It answers the API server's aggregation layer and nobody else, and asks the rest of the operator through callables:
it knows no Kubernetes client, reads no cluster and computes no demand. No data is an answer of its own (404), on
which an HPA holds its replicas.
"""

from .authorisation import Review
from .identity import FrontProxy
from .server import Config, MetricsApi, serve

__all__ = ["Config", "FrontProxy", "MetricsApi", "Review", "serve"]
