"""`python -m caa`: the same as the command `caa`. Nothing else lives here."""

import sys

from caa.cli import main

if __name__ == "__main__":
    sys.exit(main())
