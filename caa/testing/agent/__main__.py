"""`python -m caa.testing.agent`: the stand-in kata-agent as a process."""

import asyncio
import sys

# structlog imports rich where it finds it (a development environment) and that is half of our start time.
sys.modules["rich"] = None  # type: ignore[assignment]

from caa.testing.agent.daemon import run  # noqa: E402
from caa.testing.agent.options import parse  # noqa: E402

if __name__ == "__main__":
    asyncio.run(run(parse(sys.argv[1:])))
