"""`python -m caa.testing.demo`; the command line is in `cli`."""

from caa.testing.demo.cli import main

if __name__ == "__main__":
    main()
