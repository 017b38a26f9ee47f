"""The committed descriptor set and stubs are what the sources compile to."""

from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from caa.wire.proto import generate

pytestmark = pytest.mark.needs("protoc")


def test_descriptor_set_and_stubs_are_fresh(tmp_path: Path) -> None:
    generate.generate(tmp_path)
    committed = {path.name: path.read_text() for path in generate.PACKAGE.glob("*.pyi")}
    assert {path.name: path.read_text() for path in tmp_path.glob("*.pyi")} == committed
    fresh, ours = (
        descriptor_pb2.FileDescriptorSet.FromString((folder / "kata.binpb").read_bytes())
        for folder in (tmp_path, generate.PACKAGE)
    )
    assert fresh == ours
