"""The three kinds of failure, and nothing else.

    InflightError
    ├── SpecError        the user has to edit the resource: a condition, no retry
    └── TransientError   the world was not ready: retried with backoff
        ├── NameConflictError     something that is not ours has a name that we need
        └── RefusedError          the API server, or a policy of the cluster, does not take what the spec asks for

Anything else that is raised is a bug: it is logged loudly and retried.
"""

from __future__ import annotations


class InflightError(Exception):
    """Base of the errors that the operator knows how to answer."""


class SpecError(InflightError):
    """A field of the ModelDeployment can't be accepted."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class TransientError(InflightError):
    """The API server or a neighbour could not answer; the same call may work later."""


class NameConflictError(TransientError):
    """An object with a name that we need exists and belongs to somebody else."""

    def __init__(self, kind: str, name: str, owner: str) -> None:
        super().__init__(
            f"{kind} {name} exists and is not owned by this ModelDeployment ({owner}); rename or delete it"
        )
        self.kind = kind
        self.name = name


class RefusedError(TransientError):
    """The API server or a policy of the cluster (admission, quota) does not take an object that the spec asks for."""

    def __init__(self, kind: str, name: str, words: str) -> None:
        super().__init__(f"{kind} {name} is refused: {words}")
