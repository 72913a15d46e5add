"""The history of a variant's revisions: numbers for new ones, and which old records are too many."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

from inflight_operator.api.world import Object, Revision


def number(name: str, variant: str, revisions: Iterable[Revision]) -> int:
    """The ControllerRevision.revision that makes `name` the newest of its variant; it stays when it is that already."""
    known = {r.name: _number(r) for r in revisions if r.variant == variant}
    newest = max(known.values(), default=0)
    return newest if newest and known.get(name) == newest else newest + 1


def surplus(revisions: Iterable[Revision], needed: Collection[str], limit: int) -> list[Object]:
    """Records of retired revisions beyond the newest `limit` of each variant."""
    retired: dict[str, list[Revision]] = defaultdict(list)
    for revision in revisions:
        if not revision.present and revision.name not in needed and "ControllerRevision" in revision.objects:
            retired[revision.variant].append(revision)
    found: list[Object] = []
    for variant in sorted(retired):
        newest_first = sorted(retired[variant], key=_number, reverse=True)
        found += [revision.objects["ControllerRevision"] for revision in newest_first[limit:]]
    return found


def _number(revision: Revision) -> int:
    record = revision.objects.get("ControllerRevision")
    return int(record["revision"]) if record else 0
