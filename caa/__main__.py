"""`python -m caa`: the same as the command `caa`. Nothing else lives here."""

import sys

try:
    from caa.cli import main
except KeyboardInterrupt:  # Ctrl-C while modules are still being loaded
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
