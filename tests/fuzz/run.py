"""The targets for as long as it is told: guided by coverage with atheris, else by mutations of the seeds.

    python tests/fuzz/run.py segment --seconds 60 --output build/fuzz

One target a process. It prints a line of JSON: how many inputs were tried, in how many seconds, with which tool, the largest resident
size; and, if it failed, the input and the exception, with exit code 1.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import random
import resource
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

# What a process may grow by, over what it takes once everything is imported (bytes).
GROWTH_MAX = 512 * 1024 * 1024
# What one input may take (seconds).
SLOWEST_MAX = 20.0
LONGEST = 4096


class Run:
    """One target's run."""

    def __init__(self, name, target, seconds):
        self.name = name
        self._target = target
        self.runs = 0
        self.slowest = 0.0
        self.began = time.monotonic()
        self.ends = self.began + seconds
        self._resident = resident()

    def try_one(self, data):
        """Run the target once, within bounds."""
        began = time.monotonic()
        with contextlib.redirect_stdout(io.StringIO()):
            self._target(data)
        self.runs += 1
        self.slowest = max(self.slowest, time.monotonic() - began)
        assert self.slowest < SLOWEST_MAX, f"{self.slowest:.1f} s"
        assert self.growth < GROWTH_MAX, f"{self.growth:,} bytes"

    @property
    def growth(self):
        return resident() - self._resident

    @property
    def is_over(self):
        return time.monotonic() >= self.ends

    def say(self, tool, **more):
        said = {
            "target": self.name,
            "tool": tool,
            "runs": self.runs,
            "seconds": round(time.monotonic() - self.began, 1),
            "slowest_seconds": round(self.slowest, 3),
            "growth_bytes": self.growth,
            **more,
        }
        print(json.dumps(said), flush=True)


def resident():
    """Return the most that this process has ever had resident, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def mutated(rng, corpus):
    """Return one of the corpus with a few changes."""
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(7)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        elif kind == 2:
            data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8, 16)))
        elif kind == 3:
            del data[at : at + rng.choice((1, 2, 4, 8, 64))]
        elif kind == 4:
            other = rng.choice(corpus)
            start = rng.randrange(len(other) + 1)
            data[at:at] = other[start : start + rng.randrange(64)]
        elif kind == 5:
            size = rng.choice((2, 4, 8))
            data[at : at + size] = rng.choice((0, 1, 2**15, 2**16 - 1)).to_bytes(size, rng.choice(("little", "big")))
        else:
            data = bytearray(rng.randbytes(rng.choice((8, 64, 512))))
    return bytes(data[:LONGEST])


def by_mutation(run, corpus, seed):
    """Mutate the seeds until the time is over."""
    rng = random.Random(seed)
    while not run.is_over:
        data = mutated(rng, corpus)
        try:
            run.try_one(data)
        except Exception as error:
            fail(run, "mutation", data, error)


def by_coverage(atheris, run, corpus, folder):
    """Have atheris think of inputs."""
    corpus_folder = folder / f"corpus-{run.name}"
    corpus_folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(corpus):
        (corpus_folder / f"seed-{number}").write_bytes(data)

    def one(data):
        if run.is_over:
            # It never returns, and would take any other end for a crash.
            run.say("atheris")
            os._exit(0)
        try:
            run.try_one(data)
        except Exception as error:
            fail(run, "atheris", data, error)

    left = max(1, int(run.ends - time.monotonic()) + 5)
    arguments = [
        sys.argv[0],
        str(corpus_folder),
        f"-max_len={LONGEST}",
        f"-max_total_time={left}",
        "-verbosity=0",
        "-rss_limit_mb=4096",
        "-timeout=120",
        f"-artifact_prefix={folder}/",
    ]
    atheris.Setup(arguments, one)
    atheris.Fuzz()


def fail(run, tool, data, error):
    """Say which input it was, and end."""
    run.say(tool, failed=repr(error), input=data.hex(), traceback=traceback.format_exc()[-4000:])
    os._exit(1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--plain", action="store_true", help="mutations only, even where there is atheris")
    given = parser.parse_args()
    atheris = None
    if not given.plain:
        with contextlib.suppress(ImportError):
            import atheris
    with atheris.instrument_imports(include=["surgetank"]) if atheris is not None else contextlib.nullcontext():
        from fuzz.targets import TARGETS, seeds
    if given.target not in TARGETS:
        parser.error(f"there is no target {given.target!r}; there are {', '.join(TARGETS)}")
    # Nobody reads them, and there are many.
    logging.getLogger("surgetank").setLevel(logging.CRITICAL)
    run = Run(given.target, TARGETS[given.target], given.seconds)
    corpus = seeds(given.target)
    if atheris is not None:
        by_coverage(atheris, run, corpus, given.output)
    else:
        by_mutation(run, corpus, given.seed)
        run.say("mutation")


if __name__ == "__main__":
    main()
