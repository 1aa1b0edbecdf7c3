"""What telemetry costs on this machine: a process of its own that `surgetank bench` starts, because only there it may know OpenTelemetry."""
