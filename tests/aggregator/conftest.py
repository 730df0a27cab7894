from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import pytest

from aggregator.core.config import CohortConfig, EvaluationConfig, FaultsConfig, StrategyConfig
from aggregator.engine import Engine
from aggregator.memory import (
    MemoryClientRegistry,
    MemoryEventSink,
    MemoryModelStore,
    MemoryQueryStore,
    MemoryRunStore,
    StoredRun,
)
from aggregator.ports import Barred, Evaluator, RunSpec
from tests.support.authority import TestAuthority
from tests.support.scripted_agent import SIGNATURE, ScriptedAgent


class Federation:
    """A real engine with a real gRPC server over ports in memory, and the agents that a test connects to it."""

    def __init__(self) -> None:
        self.authority = TestAuthority()
        self.registry, self.store = MemoryClientRegistry(), MemoryRunStore()
        self.models, self.sink = MemoryModelStore(), MemoryEventSink()
        self.queries = MemoryQueryStore()
        self.evaluator: Evaluator | None = None
        self.connections: dict[str, ScriptedAgent] = {}
        self._stack = AsyncExitStack()

    async def start(self, port: int = 0, **options: Any) -> None:
        defaults: dict[str, Any] = {
            "store": self.store, "events": self.sink, "queries": self.queries,
            "heartbeat_seconds": 1.0, "lost_after_seconds": 0.1,
        }  # fmt: skip
        self.engine = Engine(
            owner="test",
            bind=f"127.0.0.1:{port}",
            tls=options.pop("tls", None) or self.authority.server(),
            registry=self.registry,
            models=self.models,
            find_evaluator=lambda app: self.evaluator,
            **(defaults | options),
        )
        await self.engine.start()

    async def close(self) -> None:
        await self._stack.aclose()
        await self.engine.stop()

    async def connect(self, client_id: str, kind: type[ScriptedAgent] = ScriptedAgent, **options: Any) -> ScriptedAgent:
        self.registry.add(client_id, options.pop("federation_id", "tests"), options.pop("labels", None))
        authority = options.pop("authority", self.authority)
        agent = self.connections[client_id] = kind(authority, self.engine.port, client_id, **options)
        return await self._stack.enter_async_context(agent)

    def bar(
        self,
        client_id: str,
        *,
        at: datetime | None = None,
        active: bool = False,
        may_return: bool = False,
        keep: Collection[str] = (),
    ) -> None:
        """What an operator's act does to the registry. The engine isn't told."""
        bar = Barred(client_id, at or datetime.now(UTC), "revoked", active, may_return, frozenset(keep))
        self.registry.bars.append(bar)
        if not active:
            self.registry.refusals[client_id] = "revoked"

    def add_run(
        self, *, run_id: int = 1, num_rounds: int = 1, clients: int = 2, quorum: int = 1, deadline: float = 20.0,
        evaluate: bool = True, labels: dict[str, str] | None = None, wait: float = 20.0,
    ) -> StoredRun:  # fmt: skip
        strategy = StrategyConfig(
            cohort=CohortConfig(min_clients=clients, labels=labels or {}),
            faults=FaultsConfig(quorum=quorum, deadline_seconds=deadline, wait_for_clients_seconds=wait),
            evaluation=EvaluationConfig(federated=evaluate),
        )
        return self.store.add(RunSpec(run_id, "test", "tests", "toy", "1", SIGNATURE, strategy, 7, num_rounds))

    async def run(self, **options: Any) -> StoredRun:
        stored = self.add_run(**options)
        async with asyncio.timeout(30):
            await self.engine.run(stored.spec.run_id)
        return stored

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.005)


@pytest.fixture
async def federation() -> AsyncIterator[Federation]:
    federation = Federation()
    await federation.start()
    yield federation
    await federation.close()
