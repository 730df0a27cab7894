"""The engine of `engine_process`: says its port, and then drives each run whose number comes on standard input."""

from __future__ import annotations

import asyncio
import sys

import django


async def _serve() -> None:
    from fedui.worker import build_engine

    engine = build_engine()
    await engine.start()
    print(engine.port, flush=True)
    runs = []
    while line := await asyncio.to_thread(sys.stdin.readline):
        runs.append(asyncio.create_task(engine.run(int(line))))
    await engine.stop()


if __name__ == "__main__":
    django.setup()
    asyncio.run(_serve())
