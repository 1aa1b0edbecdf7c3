"""From sealed batch to verdict: when a batch may go, how it goes, and what the answer means."""
