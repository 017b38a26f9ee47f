"""Messages of every service on our sockets: one module a proto package, classes from one private descriptor pool.

The sources are `src/*.proto`; `python -m caa.wire.proto.generate` compiles them to `kata.binpb` and the stubs. The
proto *package* names are the wire's (`grpc.AgentService`), the file names ours: in a private pool neither Kata's nor
anybody else's files of the same name can clash, and no generated code ties us to one protobuf version.
"""
