"""A real single-node Kubernetes cluster without Docker, for development and tests.

Runs on the system's python3 (>= 3.11) with the standard library only: this code has to work before any
virtual environment exists. The product never imports it.
"""
