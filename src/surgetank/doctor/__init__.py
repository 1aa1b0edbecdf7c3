"""What `surgetank doctor` finds out, without a terminal: whether telemetry would be safe here, and for how long."""
