"""A control plane, real Envoys and stand-ins for pods, all on loopback."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from edge_tokens import certificate
from inflight_operator.xds.model import Programmed, RouteSpec
from inflight_operator.xds.plane import ControlPlane, Ports, Server, serve
from local_envoy import Envoy, edge_secret, envoy
from pods import Pod, pod
from ports import free_port

Key = tuple[str, str]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Rig:
    """Starts what a test asks for; all of it is gone when the test is over."""

    directory: Path
    stack: AsyncExitStack
    http: aiohttp.ClientSession
    xds_port: int = field(default_factory=free_port)
    port: int = field(default_factory=free_port)
    tls_port: int = field(default_factory=free_port)
    plane: ControlPlane = field(init=False)
    server: Server | None = None
    announced: list[Key] = field(default_factory=list)

    def make_plane(self, **options: Any) -> ControlPlane:
        """A control plane as a new operator process has it."""
        on_programmed = options.pop("on_programmed", self.announced.append)
        ports = Ports(self.port, self.tls_port, str(self.directory / "sds-edge.yaml"))
        self.plane = ControlPlane(on_programmed, ports=ports, **options)
        return self.plane

    async def start(self, *specs: RouteSpec, **options: Any) -> ControlPlane:
        """An operator that has read its first full list."""
        self.make_plane(**options)
        for spec in specs:
            self.set(spec)
        self.plane.open()
        await self.listen()
        return self.plane

    async def listen(self) -> None:
        self.server = await serve(self.plane, self.xds_port, None, host="127.0.0.1")
        self.stack.push_async_callback(self.server.stop)

    async def stop_operator(self) -> None:
        assert self.server is not None
        await self.server.stop()

    def set(self, spec: RouteSpec) -> Key:
        key = (spec.namespace, spec.name)
        self.plane.set(key, spec)
        return key

    async def router(self, node: str = "router-0", *, ready: bool = True, **options: Any) -> Envoy:
        started = await self.stack.enter_async_context(
            envoy(self.directory / node, self.xds_port, node=node, **options)
        )
        if ready:
            await started.until_ready()
        return started

    def encrypt(self, name: str) -> ssl.SSLContext:
        """Give the routers a (new) certificate for `name`; returns what a client needs to believe it."""
        trusted = ssl.create_default_context(cafile=str(certificate(self.directory / "edge", name)))
        edge_secret(self.directory / "sds-edge.yaml", self.directory / "edge")
        return trusted

    async def pod(self, name: str = "pod", **options: Any) -> Pod:
        return await self.stack.enter_async_context(pod(name, **options))

    async def programmed(self, key: Key, seconds: float = 5.0) -> Programmed:
        """What the routers have said about a key once they have said something."""
        async with asyncio.timeout(seconds):
            while True:
                state = self.plane.programmed(key)
                if state.acknowledged or state.rejected:
                    return state
                await asyncio.sleep(0.005)

    async def ask(self, path: str = "/", host: str = "digits.demo", method: str = "GET", **options: Any) -> Answer:
        """What the router answers; with `ssl` (a context) asked by HTTPS."""
        headers = {"Host": host, **options.pop("headers", {})}
        door = f"https://127.0.0.1:{self.tls_port}" if "ssl" in options else f"http://127.0.0.1:{self.port}"
        url = URL(f"{door}{path}", encoded=True)  # sent as it is, not made tidy
        async with self.http.request(method, url, headers=headers, **options) as answer:
            return Answer(
                answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.json(content_type=None)
            )

    @asynccontextmanager
    async def traffic(self, host: str = "digits.demo", clients: int = 8, **options: Any) -> AsyncIterator[Counter[str]]:
        """Clients that ask all the time, as `ask`; counts answers by status and who answered, or the error."""
        seen: Counter[str] = Counter()

        async def client() -> None:
            while True:
                try:
                    answer = await self.ask(host=host, **options)
                    who = answer.body.get("pod") or answer.body.get("code")
                    seen[f"{answer.status} {who}"] += 1
                except aiohttp.ClientError as error:
                    seen[repr(error)] += 1

        tasks = [asyncio.create_task(client()) for _ in range(clients)]
        try:
            yield seen
            enough = seen.total() + 2 * clients  # the last change is to be seen too, however quickly it came
            await self.until(lambda: seen.total() >= enough)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def until(self, fact: Callable[[], object], seconds: float = 5.0) -> None:
        async with asyncio.timeout(seconds):
            while not fact():  # noqa: ASYNC110 - of many kinds, and none has an event
                await asyncio.sleep(0.01)

    async def eventually(self, fact: Callable[[], Awaitable[bool]], seconds: float = 5.0) -> None:
        """As `until`, for what has to be asked for."""
        async with asyncio.timeout(seconds):
            while not await fact():  # noqa: ASYNC110 - of many kinds, and none has an event
                await asyncio.sleep(0.02)
