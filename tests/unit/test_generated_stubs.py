"""What is generated and committed is what the protos say now."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from etcd_grpc.etcd import rpc_pb2

ROOT = Path(__file__).resolve().parents[2]


def compiled(proto: Path, folder: Path) -> FileDescriptorProto:
    out = folder / "compiled.binpb"
    assert protoc.main(["protoc", f"-I{proto.parent}", f"--descriptor_set_out={out}", str(proto)]) == 0
    (file,) = FileDescriptorSet.FromString(out.read_bytes()).file
    for message in file.message_type:
        for field in message.field:
            field.ClearField("json_name")  # protoc leaves it out of what it embeds in Python
    return file


def loaded(path: Path) -> ModuleType:
    """The module at ``path``, without putting its folder on ``sys.path``."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_etcd_stubs_are_current() -> None:
    script = ROOT / "scripts" / "generate_stubs.py"
    checked = subprocess.run(
        [sys.executable, script, "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_example_stubs_have_the_protos_descriptor(tmp_path: Path) -> None:
    module = loaded(ROOT / "examples" / "greeter" / "helloworld_pb2.py")
    committed = FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
    assert committed == compiled(ROOT / "proto" / "helloworld.proto", tmp_path)


def test_etcd_messages_stand_in_a_pool_of_their_own() -> None:
    """Or they would clash with those of another etcd client in the same process."""
    name = rpc_pb2.RangeRequest.DESCRIPTOR.full_name
    assert name == "etcd_grpc.v3.RangeRequest"
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName(name)


def test_messages_have_etcds_own_numbers_on_the_wire() -> None:
    """Bytes as etcd's generated code writes them: rpc.proto and kv.proto of etcd 3.5."""
    assert (
        rpc_pb2.PutRequest(key=b"k", value=b"v", lease=7).SerializeToString()
        == b"\n\x01k\x12\x01v\x18\x07"
    )
    request = rpc_pb2.WatchRequest(
        create_request=rpc_pb2.WatchCreateRequest(
            key=b"k", range_end=b"l", start_revision=5, progress_notify=True, watch_id=3, fragment=True
        )
    )
    assert request.SerializeToString() == b"\n\x0e\n\x01k\x12\x01l\x18\x05 \x018\x03@\x01"
    event = rpc_pb2.Event(type=rpc_pb2.Event.DELETE, kv=rpc_pb2.KeyValue(key=b"k", mod_revision=9))
    assert event.SerializeToString() == b"\x08\x01\x12\x05\n\x01k\x18\x09"
