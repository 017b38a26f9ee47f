"""`python -m caa.testing.demo`; the command line is in `cli`."""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while the rest is imported: no traceback

    from caa.testing.demo.cli import main

    main(prog_name="caa demo")
