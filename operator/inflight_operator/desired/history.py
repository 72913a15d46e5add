"""The history of revisions: numbers for new ones, and which old records are too many."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from inflight_operator.api.world import Object, Revision


def next_number(revisions: Iterable[Revision]) -> int:
    """One more than the highest ControllerRevision.revision so far."""
    return 1 + max((_number(r) for r in revisions), default=0)


def surplus(revisions: Iterable[Revision], needed: Collection[str], limit: int) -> list[Object]:
    """Records of retired revisions beyond the newest `limit`."""
    retired = [r for r in revisions if not r.live and r.name not in needed and "ControllerRevision" in r.objects]
    retired.sort(key=_number, reverse=True)
    return [r.objects["ControllerRevision"] for r in retired[limit:]]


def _number(revision: Revision) -> int:
    record = revision.objects.get("ControllerRevision")
    return int(record["revision"]) if record else 0
