"""OTLP without protobuf: from SDK objects straight to the bytes of an OTLP request, and what is done to such bytes.

Owns: nothing; the modules are imported by name.
Threads: see the modules; a codec belongs to one pipeline.
Invariants: nothing here imports OpenTelemetry or protobuf; SDK objects are
read by attribute. What the official encoder can encode comes out as an equal
message; what it cannot encode comes out repaired, never as a lost batch.
"""
