"""How much memory there is and how much is taken: probes, the monitor, and what gives memory back. Knows no buffer, no disk, no OpenTelemetry."""
