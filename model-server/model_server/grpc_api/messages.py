"""The protocol's messages, made from descriptor.py in a descriptor pool of their own.

Not protoc's modules: those register `inference.*` for the whole process, where a model that asks another server with
tritonclient would find the names taken; and they bind to one version of protobuf. messages.pyi has the types.
"""

from __future__ import annotations

import base64

from google.protobuf import descriptor_pool, message_factory

from model_server.grpc_api.descriptor import FILE

_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(base64.b64decode(FILE))

for _name, _descriptor in _pool.FindFileByName("inference.proto").message_types_by_name.items():
    globals()[_name] = message_factory.GetMessageClass(_descriptor)
