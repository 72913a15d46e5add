"""Writes what the model server's gRPC API is made of from its .proto, or checks that it is what the .proto gives now.

The .proto's descriptor (base64) in a Python module, and the types of its messages: see messages.py beside them for why
it isn't protoc's Python. grpcio-tools is pinned in requirements/dev.txt, so everybody's protoc writes the same.
"""

from __future__ import annotations

import argparse
import base64
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from google.protobuf import descriptor_pb2

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = ROOT / "model-server" / "model_server" / "grpc_api"
_HEAD: Final = '"""{job} Generated from inference.proto by `make stubs`: don\'t edit."""\n'


def generated() -> dict[str, str]:
    """File names and contents."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PACKAGE}"]
        options = [f"--descriptor_set_out={directory}/set", f"--pyi_out={directory}"]
        subprocess.run([*command, *options, str(PACKAGE / "inference.proto")], check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(Path(directory, "set").read_bytes())
        types = Path(directory, "inference_pb2.pyi").read_text()
    wire = files.file[0].SerializeToString(deterministic=True)
    text = base64.encodebytes(wire).decode()
    descriptor = f'{_HEAD.format(job="The protocol.")}\nFILE = """\n{text}"""\n'
    types = _HEAD.format(job="The messages' types.") + types.replace(", _Mapping]", ", _Mapping[str, object]]")
    return {"descriptor.py": descriptor, "messages.pyi": types}


def main() -> int:
    """Exit status 1: with --check, a file is stale."""
    parser = argparse.ArgumentParser(prog="stubs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is stale")
    check, stale = parser.parse_args().check, False
    for name, text in generated().items():
        path = PACKAGE / name
        if not check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            print(f"{path.relative_to(ROOT)} is not what inference.proto gives now: run `make stubs`", file=sys.stderr)
            stale = True
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
