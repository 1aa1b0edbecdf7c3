"""All checks one after the other, and the forecast.

Owns: no state. Threads: one.
Invariants: a check that goes wrong itself is a finding, and costs none of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from surgetank.catalogue.effective import Effective
from surgetank.doctor.configuration import check_configuration, check_installation
from surgetank.doctor.endpoint import check_endpoints
from surgetank.doctor.finding import Finding, State, failed
from surgetank.doctor.memory import check_memory
from surgetank.doctor.processes import check_processes, living, measure
from surgetank.doctor.storage import SPOOL, check_spool, check_status_folder, disk_for
from surgetank.memory.probes import choose_probe
from surgetank.model import Signal
from surgetank.sizing import SIZES, Buffer, Forecast, Load, forecast


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the examination is about."""

    may_send: bool = True
    timeout: float = 5.0
    """Seconds for each step on the network."""
    outage: float = 3600.0
    """Seconds."""
    rates: Mapping[Signal, float] = field(default_factory=dict)
    """Items a second, in place of those of living processes."""
    sizes: Mapping[Signal, float] = field(default_factory=dict)
    """Bytes an item, sealed, in place of what is measured or known."""
    processes: int = 1
    """So many share the rates."""
    watch: float = 2.0
    """Seconds between the two readings of living processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What was found."""

    findings: list[Finding]
    forecast: Forecast | None
    """None where nothing is known of what comes in."""
    is_measured: bool
    """Whether the rates are those of living processes."""

    @property
    def is_well(self) -> bool:
        """Whether nothing failed."""
        return all(each.state is not State.FAILED for each in self.findings)

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "is_well": self.is_well,
            "checks": [each.as_data() for each in self.findings],
            "forecast": self.forecast and {**self.forecast.as_data(), "is_measured": self.is_measured},
        }


def examine(wishes: Wishes, progress: Callable[[str], None]) -> Examination:
    """
    Check everything.

    Args:
        wishes: What it is about.
        progress: Told what is looked at next.
    """
    progress("configuration")
    effective, found = check_configuration()
    tanks = living(effective)
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("installation", lambda: check_installation(effective)),
        ("endpoint", lambda: check_endpoints(effective, timeout=wishes.timeout, may_send=wishes.may_send)),
        ("spool", lambda: check_spool(effective)),
        ("memory", lambda: check_memory(effective, choose_probe(effective.memory.limit_mb))),
        ("status folder", lambda: check_status_folder(effective)),
        ("processes", lambda: check_processes(tanks, effective.tank.limits)),
    ]
    for name, check in checks:
        progress(name)
        found += _carefully(name, check)
    progress("rates of living processes")
    loads, processes = _loads(effective, wishes)
    # What cannot be written holds nothing.
    is_stored = not any(each.check == SPOOL and each.state is State.FAILED for each in found)
    is_stored &= any(limits.is_stored for limits in effective.tank.limits.values())
    outlook = None
    if loads:
        outlook = forecast(
            loads,
            {signal: Buffer.of(limits) for signal, limits in effective.tank.limits.items()},
            disk_for(effective) if is_stored else None,
            outage=wishes.outage,
            processes=processes,
        )
    return Examination(findings=found, forecast=outlook, is_measured=not wishes.rates)


def _carefully(name: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    found = []
    try:
        # One by one, so that what was found before stays found.
        for each in check():
            found.append(each)  # noqa: PERF402
    except Exception as error:
        trouble = f"The check could not be completed ({type(error).__name__}: {error})."
        found.append(failed(name, trouble, "This is a defect of surgetank's; please report it."))
    return found


def _loads(effective: Effective, wishes: Wishes) -> tuple[dict[Signal, Load], int]:
    if not wishes.rates:
        loads, processes = measure(effective, wishes.watch)
    else:
        loads = {signal: Load(rate=rate, size=SIZES[signal]) for signal, rate in wishes.rates.items() if rate > 0}
        processes = wishes.processes
    sizes = wishes.sizes
    return {s: Load(rate=load.rate, size=sizes.get(s, load.size)) for s, load in loads.items()}, processes
