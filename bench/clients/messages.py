"""Our messages beside those of the clients: every name and number is the same."""
import os
import unittest

from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2, service_pb2


def read(files):
    """Messages, enumerations and calls as plain values, by name."""
    found = {}

    def enum(prefix, e):
        found[prefix + e.name] = {v.name: v.number for v in e.value}

    def message(prefix, m):
        name = prefix + m.name
        found[name] = {(f.name, f.number, f.type, f.label, f.type_name.rsplit(".", 1)[-1], f.HasField("oneof_index")) for f in m.field}
        for n in m.nested_type:
            message(name + ".", n)
        for e in m.enum_type:
            enum(name + ".", e)

    for f in files:
        for m in f.message_type:
            message("", m)
        for e in f.enum_type:
            enum("", e)
        for s in f.service:
            found[s.name] = {(m.name, m.input_type, m.output_type, m.client_streaming, m.server_streaming) for m in s.method}
    return found


class Messages(unittest.TestCase):
    maxDiff = None

    def test_they_are_those_of_tritonclient(self):
        with open(os.environ["SLUICE_MESSAGES"], "rb") as f:
            ours = read(descriptor_pb2.FileDescriptorSet.FromString(f.read()).file)
        theirs = []
        for module in (service_pb2, model_config_pb2):
            d = descriptor_pb2.FileDescriptorProto()
            module.DESCRIPTOR.CopyToProto(d)
            theirs.append(d)
        theirs = read(theirs)
        self.assertEqual(sorted(theirs), sorted(ours))
        for name in theirs:
            self.assertEqual(theirs[name], ours[name], name)
