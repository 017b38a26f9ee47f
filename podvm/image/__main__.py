"""`python -m podvm.image`: build, convert, publish and customise pod VM images."""

import sys

from podvm.image.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
