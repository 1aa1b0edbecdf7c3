"""Checks of the configuration, and of what is installed.

Owns: no state. Threads: any. Invariants: nothing is imported but names of distributions and entry points are looked up.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from importlib.util import find_spec
from typing import Final

from surgetank._version import __version__
from surgetank.catalogue.effective import Effective, audit
from surgetank.catalogue.entries import settings
from surgetank.catalogue.warnings import passed_over, unread
from surgetank.doctor.finding import Finding, failed, ok, warning

_CONFIGURATOR: Final = "OTEL_PYTHON_CONFIGURATOR"
_DISABLED: Final = "OTEL_SDK_DISABLED"
_EXPORTERS: Final = {
    "OTEL_TRACES_EXPORTER": "spans",
    "OTEL_METRICS_EXPORTER": "metrics",
    "OTEL_LOGS_EXPORTER": "logs",
}
_DISTRO: Final = "OTEL_PYTHON_DISTRO"
_SDK: Final = "opentelemetry-sdk"
_LEAST: Final = re.compile(rf"{_SDK}\b[^;]*>=\s*([\d.]+)")


def check_configuration() -> tuple[Effective, list[Finding]]:
    """Return what the environment comes to, with defaults in place of what is refused, and what there is to say of it."""
    effective, refused = audit()
    name = "configuration"
    found = [
        failed(
            name,
            f"{effective.environment.said[error.field]}.",
            "Correct it, or unset it; the checks below go on as if it were unset.",
        )
        for error in refused
    ]
    advice = "Correct it, or unset it; `surgetank config` shows what is in force."
    found += [
        warning(name, sentence if sentence.endswith("?") else f"{sentence}.", advice)
        for sentence in (*unread(), *passed_over(effective))
    ]
    if not found:
        changed = sum(setting.source(effective) is not None for setting in settings())
        found.append(ok(name, f"Valid; {changed} of {len(settings())} settings come from the environment."))
    found += _switched_off(effective)
    return effective, found


def check_installation(effective: Effective) -> Iterator[Finding]:
    """Check versions, extras, and who configures OpenTelemetry."""
    name = "installation"
    python = platform.python_version()
    try:
        sdk = version(_SDK)
    except PackageNotFoundError:
        yield failed(name, f"{_SDK} is not installed in {sys.prefix}.", f"pip install '{_SDK}'")
        return
    least = _least_sdk()
    if _numbers(sdk) < _numbers(least):
        yield failed(name, f"{_SDK} {sdk} is older than surgetank supports.", f"pip install '{_SDK}>={least}'")
    else:
        there = [extra for extra, module in _EXTRAS.items() if find_spec(module) is not None]
        extras = f"; extras: {', '.join(there)}" if there else ""
        yield ok(name, f"surgetank {__version__}, Python {python}, {_SDK} {sdk}{extras}.")
    is_grpc = any(outlet.protocol == "grpc" for outlet in effective.tank.outlets.values())
    if is_grpc and find_spec("grpc") is None:
        yield failed(
            name, "gRPC is chosen and not installed.", "pip install 'surgetank[grpc]', or choose http/protobuf."
        )
    yield _configurator(effective)
    yield from _distros(effective)


_EXTRAS: Final = {"cli": "rich", "grpc": "grpc", "encryption": "cryptography", "memory": "psutil"}


def _least_sdk() -> str:
    found = (_LEAST.match(each) for each in requires("surgetank") or ())
    return next((each[1] for each in found if each), "0")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r"\d+", text)[:2])


def _switched_off(effective: Effective) -> Iterator[Finding]:
    name = "configuration"
    if effective.environment.is_true(_DISABLED):
        yield warning(name, f"{_DISABLED}=true: nothing is sent.", f"Unset {_DISABLED}, if telemetry is wanted.")
    for variable, signal in _EXPORTERS.items():
        # Often wanted, for metrics above all, so this is no warning.
        if effective.environment.text(variable) == "none":
            yield ok(name, f"{variable}=none: no {signal} are sent, as asked for.")


def _configurator(effective: Effective) -> Finding:
    name = "configurator"
    chosen = effective.environment.text(_CONFIGURATOR)
    names = sorted({each.name for each in entry_points(group="opentelemetry_configurator")})
    if chosen == "surgetank":
        if "surgetank" not in names:
            return failed(
                name,
                f"{_CONFIGURATOR} names surgetank, which this interpreter has no entry point of.",
                "pip install surgetank",
            )
        return ok(name, "surgetank configures OpenTelemetry under opentelemetry-instrument.")
    if chosen is not None:
        return warning(
            name,
            f"{_CONFIGURATOR}={chosen}: opentelemetry-instrument does not protect telemetry.",
            f"Set {_CONFIGURATOR}=surgetank, unless the application calls surgetank.install().",
        )
    return ok(
        name,
        f"{_CONFIGURATOR} is not set: `surgetank run` and surgetank.install() protect telemetry, opentelemetry-instrument alone does not.",
    )


def _distros(effective: Effective) -> Iterator[Finding]:
    names = sorted({each.name for each in entry_points(group="opentelemetry_distro")})
    if len(names) > 1 and effective.environment.text(_DISTRO) is None:
        yield warning(
            "configurator",
            f"There are several distros ({', '.join(names)}); which one opentelemetry-instrument takes is not said.",
            f"Name one with {_DISTRO}.",
        )
