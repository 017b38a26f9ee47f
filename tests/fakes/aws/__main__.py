"""`python -m tests.fakes.aws`: an EC2 and an instance metadata service on the loopback, until Ctrl-C."""

import argparse
import sys
import threading
from contextlib import suppress

from tests.fakes.aws.ec2 import Ec2
from tests.fakes.aws.imds import Imds
from tests.fakes.wire import Wire


def main() -> None:
    """Print the settings, wait, print the ledger."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    asked = parser.parse_args()
    ec2 = Ec2()
    imds = Imds(region=ec2.region, subnet=ec2.subnets[0], groups=(ec2.group,))
    with Wire(ec2, port=asked.port) as wire, Wire(imds) as metadata:
        settings = {
            "CLOUD_PROVIDER": "aws",
            "AWS_ENDPOINT_URL_EC2": wire.url,
            "AWS_ENDPOINT_URL_STS": wire.url,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "PODVM_AMI_ID": ec2.ami,
        }
        sys.stdout.write("".join(f"export {key}={value}\n" for key, value in settings.items()))
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
        sys.stderr.write(f"\n{ec2.ledger}\n")


if __name__ == "__main__":
    main()
