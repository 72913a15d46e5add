"""May this user read this metric? The API server decides (SubjectAccessReview); its answers are kept for seconds.

The widest question is asked first: who may read every Deployment's metric, as the HPA controller may, costs one review
every ten seconds and not one per HPA and sync (2,000 HPAs would be 133 a second).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from .identity import User
from .objects import GROUP, METRIC, RESOURCE, VERSION

Review = Callable[[Mapping[str, Any]], Awaitable[bool]]
"""Given the spec of a SubjectAccessReview, whether its status is allowed. Raises InflightError if nobody can tell."""

KEEP_SECONDS: Final = 10.0
_MOST_ANSWERS: Final = 10_000


class Authoriser:
    """Asks `review`, remembers yes and no for KEEP_SECONDS. `clock` is monotonic seconds."""

    def __init__(self, review: Review, clock: Callable[[], float]) -> None:
        self._review = review
        self._clock = clock
        self._answers: OrderedDict[tuple[User, str, str], tuple[float, bool]] = OrderedDict()

    async def may_read(self, user: User, namespace: str, name: str) -> bool:
        """Whether `user` may read the metric of Deployment `name`: of all, of the namespace's, or of this one."""
        for scope in (("", ""), (namespace, ""), (namespace, name)):
            if await self._allowed(user, *scope):
                return True
        return False

    async def _allowed(self, user: User, namespace: str, name: str) -> bool:
        key, now = (user, namespace, name), self._clock()
        known = self._answers.get(key)
        if known and now - known[0] < KEEP_SECONDS:
            return known[1]
        answer = await self._review(_question(user, namespace, name))
        self._answers[key] = (now, answer)
        self._answers.move_to_end(key)
        while len(self._answers) > _MOST_ANSWERS:
            self._answers.popitem(last=False)
        return answer


def _question(user: User, namespace: str, name: str) -> dict[str, Any]:
    """The spec of a SubjectAccessReview; an empty namespace or name means every one."""
    return {
        "user": user.name,
        "groups": list(user.groups),
        "extra": {key: list(values) for key, values in user.extra.items()},
        "resourceAttributes": {
            "group": GROUP,
            "version": VERSION,
            "resource": RESOURCE,
            "subresource": METRIC,
            "verb": "get",
            "namespace": namespace,
            "name": name,
        },
    }
