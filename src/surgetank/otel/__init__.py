"""The doors into OpenTelemetry: the only folder that imports the SDK."""
