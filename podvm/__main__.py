"""`python -m podvm`: the guest's programs under one name."""

import sys

from podvm.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
