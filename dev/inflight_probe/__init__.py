"""How the demo, the benchmarks and the e2e tests look at a running inflight: load, answers, API objects.

Knows the router's wire contract and the Kubernetes API; imports nothing of the operator or the model server,
so that what it measures is what a stranger would measure.
"""
