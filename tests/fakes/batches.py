"""Builders of batches for tests that do not care what is inside."""

from surgetank.model import Batch, HeldBatch, Lane, Signal


def batch(items=1, *, lane=Lane.NORMAL, body=b"x", name="b", signal=Signal.SPANS):
    """Return a sealed batch with the given outside and an opaque inside."""
    return Batch(
        id=name,
        signal=signal,
        lane=lane,
        items=items,
        body=body,
        raw_size=len(body),
        encoding="identity",
        created=0.0,
    )


def held(items=1, *, seq=1, **outside):
    """Return such a batch as the queue holds it."""
    return HeldBatch(batch=batch(items, **outside), first_seq=seq)
