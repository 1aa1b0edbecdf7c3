"""What the user has chosen: which folder, which keys, which headers, where to write.

Owns: no state. Threads: one.
Invariants: whatever is wrong ends in one line that says what to do, and exit code 2; no message repeats a secret.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import typer

from surgetank.cli import show
from surgetank.config import Environment
from surgetank.errors import SurgetankError
from surgetank.spool.encryption import Cipher
from surgetank.spool.filesystem import HAS_LOCKS, Filesystem
from surgetank.spool.inspect import is_spool, spool_folders
from surgetank.spool.settings import SpoolConfig, key_source, state_folder


class ChoiceError(SurgetankError):
    """What was asked for cannot be done; the message says what can."""


@contextmanager
def told() -> Iterator[None]:
    """Turn what goes wrong into a line and an exit code, and log lines into warnings."""
    handler = _Warnings()
    logger = logging.getLogger("surgetank")
    logger.addHandler(handler)
    try:
        if not HAS_LOCKS:
            raise ChoiceError("there are no spools on this platform, which has no advisory locks")
        yield
    except BrokenPipeError:
        raise  # Whoever read our output has seen enough.
    except OSError as error:
        show.error(f"{error.filename or 'the spool'}: {error.strerror or error}")
        raise typer.Exit(2) from None
    except SurgetankError as error:
        show.error(str(error))
        raise typer.Exit(2) from None
    finally:
        logger.removeHandler(handler)


class _Warnings(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            show.warn(record.getMessage())


def all_folders(filesystem: Filesystem, given: str | None) -> list[str]:
    """Return the spools that are meant, at least one."""
    environment = Environment()
    folders = spool_folders(filesystem, environment, given)
    if not folders:
        raise ChoiceError(
            f"there is no spool below {state_folder(environment)}; say where it is with --dir or SURGETANK_SPOOL_DIR"
        )
    if len(folders) > 1:
        return folders
    (path,) = folders
    try:
        names = filesystem.names(path)
    except FileNotFoundError:
        raise ChoiceError(f"there is no folder {path}; say where the spool is with --dir") from None
    # The folder above the spools is easily taken for one.
    below = [] if is_spool(filesystem, path) else [os.path.join(path, name) for name in sorted(names)]
    return [each for each in below if is_spool(filesystem, each)] or [path]


def one_folder(filesystem: Filesystem, given: str | None) -> str:
    """Return the one spool that is meant."""
    folders = all_folders(filesystem, given)
    if len(folders) > 1:
        raise ChoiceError(
            "there are several spools; choose one with\n" + "\n".join(f"  --dir {each}" for each in folders)
        )
    return folders[0]


def key_text(path: str | None) -> Callable[[], str] | None:
    """Return what reads the keys, from a file or from the environment; None where there are none."""
    return key_source(SpoolConfig(encryption_key_file=path), Environment())


def cipher(path: str | None) -> Cipher | None:
    """Return the cipher for those keys; None where there are none."""
    source = key_text(path)
    return None if source is None else Cipher(source())


def headers(pairs: list[str]) -> dict[str, str]:
    """Read `NAME=VALUE`s."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            # The pair may hold a credential, so the message does not repeat it.
            raise ChoiceError("a --header has no NAME=VALUE form")
        found[name.strip()] = value.strip()
    return found


@contextmanager
def output(path: str | None) -> Iterator[BinaryIO]:
    """Open where lines go to; telemetry is nobody else's business, so a file is closed to others."""
    if path is None:
        stream = typer.get_binary_stream("stdout")
        yield stream
        stream.flush()
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ChoiceError(f"{path} is there already; give another name with --output, or remove it") from None
    with os.fdopen(descriptor, "wb") as file:
        yield file
