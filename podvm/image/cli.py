"""The commands of `python -m podvm.image`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from caa.errors import CaaError
from podvm.image import tiny

_CACHE = Path(__file__).resolve().parents[2] / ".cache" / "image"


def main(argv: Sequence[str]) -> int:
    """Run one command; 0, or 1 after a line that says what is wrong."""
    arguments = _parser().parse_args(argv)
    try:
        run = {"tiny": _tiny}[arguments.command]
        run(arguments)
    except (CaaError, OSError) as error:
        sys.stderr.write(f"image: {error}\n")
        return 1
    return 0


def _tiny(arguments: argparse.Namespace) -> None:
    image = tiny.build(arguments.cache, kernel_package=arguments.kernel_package)
    sys.stdout.write(f"kernel  {image.kernel}\ninitrd  {image.initrd}\ncmdline {image.cmdline}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="podvm.image", description="Pod VM images: build, convert, publish, customise."
    )
    parser.add_argument("--cache", type=Path, default=_CACHE, help="where everything is kept (%(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    small = commands.add_parser("tiny", help="kernel and initramfs for a direct boot, for tests")
    small.add_argument("--kernel-package", type=Path, help="a Debian kernel package instead of apt's")
    return parser
