"""A fake metadata service as a process, for demos inside a network namespace that has the cloud's address.

python -m tests.fakes.metadata aws --user-data FILE --listen 169.254.169.254:80
"""

import argparse
from pathlib import Path

from tests.fakes.metadata.clouds import CLOUDS
from tests.fakes.metadata.server import MetadataServer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cloud", choices=sorted(CLOUDS))
    parser.add_argument("--user-data", type=Path, required=True)
    parser.add_argument("--listen", default="127.0.0.1:8080")
    options = parser.parse_args()
    host, _, port = options.listen.rpartition(":")
    MetadataServer(CLOUDS[options.cloud](options.user_data.read_bytes()), host, port=int(port)).serve()


if __name__ == "__main__":
    main()
