"""More processes that serve connections, when a quick model makes HTTP the bottleneck.

The first process (`lead`) accepts all connections, has the model, the queue and the metrics' port, and does everything
alone as long as it can. When its event loop is busy, it starts another process (`helper`) with the same model and hands
it connections between two of their requests: the very sockets, so clients notice nothing. Slots and queue are divided,
counts are added up: for whoever looks from outside the pod stays one server.
"""
