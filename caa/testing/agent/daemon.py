"""The process: wire the parts together, serve until the sandbox is destroyed or a signal comes, leave nothing."""

import asyncio
import signal

from caa.testing.agent import kernel
from caa.testing.agent.options import Options
from caa.testing.agent.policy import Policy
from caa.testing.agent.sandbox import Sandbox
from caa.testing.agent.service import Service
from caa.wire.server import Server


async def run(options: Options) -> None:
    """Serve. Returns when DestroySandbox or SIGTERM or SIGINT came and everything is removed."""
    kernel.become_subreaper()
    sandbox = Sandbox(options)
    document = options.policy.read_text() if options.policy is not None and options.policy.exists() else ""
    server = Server(Service(sandbox, Policy(options.deny, document)).services())
    options.server.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, sandbox.oom.end)
    await server.listen(str(options.server))
    try:
        await sandbox.oom.ended.wait()
        # Those who wait for an OOM event are answered before their connection closes.
        await asyncio.sleep(0.02)
    finally:
        await sandbox.destroy()
        await server.close()
