"""An outage and a `kill -9` in the middle of it, with real processes: `python -m demo [--compare] [--no-kill] [--no-squeeze]`."""
