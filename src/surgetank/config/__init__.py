"""Every limit and every setting of a tank: frozen records, validation, and what the environment says.

Owns: no state. Threads: any.
Invariants: importing from here is importing from the module that has it; what is complete is possible.
"""

from surgetank.config.environment import MEBIBYTE, Environment, check_choice, check_flag, check_kind, check_number
from surgetank.config.limits import BufferConfig, DropStrategy, OnFull, Persist, SignalLimits, resolve_limits
from surgetank.config.outlet import Compression, OutletConfig, Protocol, resolve_outlet
from surgetank.config.resolve import TankConfig, resolve, resolve_self_metrics
from surgetank.config.timing import Timing

__all__ = [
    "MEBIBYTE",
    "BufferConfig",
    "Compression",
    "DropStrategy",
    "Environment",
    "OnFull",
    "OutletConfig",
    "Persist",
    "Protocol",
    "SignalLimits",
    "TankConfig",
    "Timing",
    "check_choice",
    "check_flag",
    "check_kind",
    "check_number",
    "resolve",
    "resolve_limits",
    "resolve_outlet",
    "resolve_self_metrics",
]
