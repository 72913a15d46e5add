"""What this tool tells a person when it cannot go on."""

from __future__ import annotations


class ClusterError(Exception):
    """One line that says what happened and what to do; the command line prints it and exits with 1."""
