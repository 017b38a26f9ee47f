"""`python -m caa.testing.agent`: the stand-in kata-agent as a process."""

import asyncio
import sys

from caa.testing.agent.daemon import run
from caa.testing.agent.options import parse

if __name__ == "__main__":
    asyncio.run(run(parse(sys.argv[1:])))
