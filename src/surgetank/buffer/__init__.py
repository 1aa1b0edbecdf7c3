"""What is held in memory: intake, queue, books, and who gives way; knows no disk, no network, no OpenTelemetry."""
