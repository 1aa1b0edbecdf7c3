"""Ours beside the stock SDK, measured in one run: `scripts/bench [figure ...]`."""
