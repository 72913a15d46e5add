"""`make demo`: from a bare machine to two real models answering real traffic, with every step shown.

Drives the public surface only: dev/cluster, Helm, kubectl-shaped objects, the S3 API and the router.
"""
