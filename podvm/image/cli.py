"""The commands of `python -m podvm.image`."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from caa.errors import CaaError, ConfigError
from podvm.image import convert, customize, inputs, publish, recipe, sign, tiny
from podvm.measure import Presence

_HERE = Path(__file__).resolve().parent
_CACHE = _HERE.parents[1] / ".cache" / "image"


def main(argv: Sequence[str]) -> int:
    """Run one command; 0, 1 after a line that says what is wrong, 130 when it was interrupted."""
    arguments = _parser().parse_args(argv)
    commands = {"tiny": _tiny, "build": _build, "convert": _convert, "publish": _publish, "customize": _customize}
    try:
        commands[arguments.command](arguments)
    except (CaaError, OSError) as error:
        sys.stderr.write(f"image: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("image: interrupted\n")
        return 130
    return 0


def _tiny(arguments: argparse.Namespace) -> None:
    image = tiny.build(arguments.cache, kernel_package=arguments.kernel_package)
    sys.stdout.write(f"kernel  {image.kernel}\ninitrd  {image.initrd}\ncmdline {image.cmdline}\n")


def _build(arguments: argparse.Namespace) -> None:
    wish = recipe.Wish(
        profile=arguments.profile,
        architecture=arguments.architecture,
        closed_policy=arguments.closed_policy,
        confidential=arguments.confidential,
        tpm=arguments.tpm,
        key_file=arguments.authorized_key,
        signer=sign.signer(arguments.secure_boot_key, arguments.secure_boot_certificate),
        rows=inputs.read(arguments.inputs),
        mirror=arguments.mirror,
    )
    _show(recipe.build(wish, arguments.cache, to=arguments.to or arguments.cache))


def _convert(arguments: argparse.Namespace) -> None:
    _show([convert.convert(arguments.image, form) for form in arguments.format])


def _publish(arguments: argparse.Namespace) -> None:
    if not arguments.dry_run:
        raise ConfigError("publishing is left to you: --dry-run prints the commands of the cloud's own program")
    pairs = [place.partition("=") for place in arguments.place]
    if bad := [name for name, equals, _ in pairs if not equals]:
        raise ConfigError(f"--place {bad[0]}: NAME=VALUE is needed")
    form = publish.way(arguments.provider).form
    file = str(arguments.image).removesuffix(".raw") + convert.FORMS[form][0]
    places = {name: value for name, _, value in pairs}
    lines = publish.commands(arguments.provider, arguments.name, file=file, places=places)
    image = shlex.quote(str(arguments.image))
    sys.stdout.write(f"python -m podvm.image convert {image} --format {form}\n" + "\n".join(lines) + "\n")


def _customize(arguments: argparse.Namespace) -> None:
    changes = customize.Changes(
        files=tuple(map(customize.parse_file, arguments.add_file)),
        arguments=tuple(arguments.set_kernel_arg),
        authorized_key=arguments.authorized_key,
        agent=arguments.agent,
        signer=sign.signer(arguments.secure_boot_key, arguments.secure_boot_certificate),
    )
    image = arguments.image
    to = arguments.output or image.with_name(f"{image.name.removesuffix('.raw')}-custom.raw")
    made = customize.customize(image, changes, cache=arguments.cache, to=to)
    _show(made)
    sys.stdout.write(next(file for file in made if file.name.endswith(".pcrs.json")).read_text())


def _show(files: Sequence[Path]) -> None:
    sys.stdout.write("".join(f"{file}\n" for file in files))


def _parser() -> argparse.ArgumentParser:
    about = "Pod VM images: build, convert, publish, customise."
    parser = argparse.ArgumentParser(prog="podvm.image", description=about)
    parser.add_argument("--cache", type=Path, default=_CACHE, help="where everything is kept (%(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    small = commands.add_parser("tiny", help="kernel and initramfs for a direct boot, for tests")
    small.add_argument("--kernel-package", type=Path, help="a Debian kernel package instead of apt's")
    _add_build(commands.add_parser("build", help="the pod VM image, as root"))
    convert_ = commands.add_parser("convert", help="a raw image in other formats")
    convert_.add_argument("image", type=Path)
    convert_.add_argument("--format", action="append", required=True, choices=sorted(convert.FORMS))
    _add_publish(commands.add_parser("publish", help="how the image gets into a cloud"))
    _add_customize(commands.add_parser("customize", help="change a finished image, offline, as root"))
    return parser


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", default="production", help=" or ".join(recipe.PROFILES))
    parser.add_argument("--architecture", default="amd64", help=" or ".join(dict(recipe.ARCHITECTURES)))
    parser.add_argument("--closed-policy", action="store_true", help="deny all until initdata or the pod sets a policy")
    parser.add_argument("--confidential", action="store_true", help="for confidential VMs: TPM required, scratch space")
    parser.add_argument("--tpm", default="", help=f"{' or '.join(Presence)}: what process-user-data is told (auto)")
    parser.add_argument("--authorized-key", type=Path, help="public keys: ssh (debug) or SFTP (byom)")
    _add_signing(parser)
    parser.add_argument("--inputs", type=Path, default=_HERE / "inputs.toml", help="pinned inputs (%(default)s)")
    parser.add_argument("--mirror", default="", help="a Debian mirror for the build tree, when it is made")
    parser.add_argument("--to", type=Path, help="where the image goes (the cache)")


def _add_publish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path)
    parser.add_argument("--provider", required=True, help=" or ".join(publish.ways()))
    parser.add_argument("--name", default="podvm", help="the image's name there")
    parser.add_argument("--place", action="append", default=[], metavar="NAME=VALUE", help="a bucket, group, ...")
    parser.add_argument("--dry-run", action="store_true", help="print the commands")


def _add_customize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path)
    parser.add_argument("--add-file", action="append", default=[], metavar="FILE:/PATH")
    parser.add_argument("--set-kernel-arg", action="append", default=[], metavar="ARGUMENT")
    parser.add_argument("--authorized-key", type=Path, help="public keys of who may log in; debug images alone")
    parser.add_argument("--agent", type=Path, help="another kata-agent")
    _add_signing(parser)
    parser.add_argument("--output", type=Path, help="the new image (beside the old one, with -custom)")


def _add_signing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--secure-boot-key", type=Path, metavar="PEM", help="sign the UKI with this private key")
    parser.add_argument("--secure-boot-certificate", type=Path, metavar="PEM", help="the certificate of that key")
