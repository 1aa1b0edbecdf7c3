"""An outage from beginning to end, with real processes: `python -m demo [--compare]`."""
