"""What is held on disk: records, segments, one signal's spool, the shared folder; knows no buffer, no network, no OpenTelemetry."""
