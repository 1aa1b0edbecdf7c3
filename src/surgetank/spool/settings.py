"""How a spool is configured: the record that users write, and what it comes to once it is complete.

Owns: no state. Threads: any. Invariants: a `SpoolSettings` that exists is complete and possible.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from surgetank import redaction
from surgetank.config import MEBIBYTE, Environment, OutletConfig, check_choice, check_number
from surgetank.errors import HIDDEN, ConfigError
from surgetank.spool.encryption import Cipher

Durability = Literal["memory", "os", "disk"]
DURABILITIES: Final[tuple[Durability, ...]] = ("memory", "os", "disk")
# Headers that say whose data it is, and open no door.
_TENANTS: Final = frozenset({"x-scope-orgid", "x-tenant", "x-tenant-id", "x-honeycomb-dataset"})
PRIVATE_PREFIX: Final = "surgetank-spool-"
"""What the name of a user's own folder, in one that others write to as well, begins with."""
OUR_NAMES: Final = ("owner-", "orphan-", ".new-", "dead-letters", "backup-")
"""What the names of everything in a spool's folder begin with."""

# A file of keys has a line of some sixty characters for each.
_KEYS_MAX: Final = 1024 * 1024
# A segment's head and acks take 8 KiB; 4 MiB keep that below 1 % and what a limit gives up at a time small.
SEGMENT_BYTES: Final = 4 * MEBIBYTE
# A spool of fewer segments could not keep the oldest while the newest is written.
_SEGMENTS_MIN: Final = 4
# Six kinds of segments may be open at a time (three signals, two lanes).
_SMALLEST_SEGMENT: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SpoolConfig:
    """
    Where and how sealed batches are kept on disk. A field left out is read from `SURGETANK_SPOOL_*`, or takes its default.

    Args:
        dir: The folder; made with mode 0700 if it is missing, refused if others can enter it. In one that others write to,
            too, a folder of one's own is made (`surgetank-spool-<user id>`). Processes that are
            given the same folder share it and send each other's orphaned batches to their own endpoint.
            Default: one folder per destination below `$XDG_STATE_HOME/surgetank`, or `~/.local/state/surgetank`.
        max_mb: MiB on disk, over all processes that share the folder; each may always use an equal part, and what the others leave free.
            Beyond it the oldest segments go, counted as `spool_full`. Default 512. 1 to 1048576.
        max_age: Seconds after which what was not delivered is given up, counted as `expired`.
            Default 172800 (two days). 1 to 31536000.
        reserve_mb: MiB of the volume that are left free for others; below it batches are held in memory only.
            Default 64. 0 to 1048576.
        durability: `os` (default): survives the process, `kill -9` included. `disk`: survives the loss of power
            as well, from some 0.1 s after sealing (group fsync). `memory`: nothing is written ahead; disk is used only
            when memory is full and at shutdown.
        encryption_key: Encrypts what is stored: key text, `id:base64` lines of which the first encrypts and all
            decrypt, or a function that returns such text. Needs `surgetank[encryption]`. Default none.
        encryption_key_file: A file with such text.
        dead_letter_mb: MiB of batches that the receiver refused for good, kept for inspection; the oldest
            go first. Default 16. 0 (keep none) to 1024.

    Raises:
        ConfigError: A value is outside its range.
    """

    dir: str | os.PathLike[str] | None = None
    max_mb: float | None = None
    max_age: float | None = None
    reserve_mb: float | None = None
    durability: Durability | None = None
    encryption_key: str | Callable[[], str] | None = field(default=None, repr=False)
    # Who has mistaken it for the other one has put the key here.
    encryption_key_file: str | None = field(default=None, repr=False)
    dead_letter_mb: float | None = None

    def __repr__(self) -> str:
        return redaction.record(self)

    def __post_init__(self) -> None:
        for name, (low, high, _) in RANGES.items():
            value = getattr(self, name)
            if value is not None:
                check_number(f"spool.{name}", value, low, high)
        if self.dir is not None and not isinstance(self.dir, (str, os.PathLike)):
            raise ConfigError("spool.dir", self.dir, "a path")
        if not (self.encryption_key is None or isinstance(self.encryption_key, str) or callable(self.encryption_key)):
            raise ConfigError("spool.encryption_key", HIDDEN, "the key's text, or a function that returns it")
        if self.encryption_key_file is not None and not isinstance(self.encryption_key_file, (str, os.PathLike)):
            raise ConfigError("spool.encryption_key_file", HIDDEN, "a path")
        if self.durability is not None:
            check_choice("spool.durability", self.durability, DURABILITIES)
        if self.encryption_key is not None and self.encryption_key_file is not None:
            raise ConfigError(
                "spool.encryption_key_file", HIDDEN, "left out beside encryption_key: one source of the key, not two"
            )


RANGES: Final[Mapping[str, tuple[float, float, float]]] = {
    "max_mb": (1, 1_048_576, 512.0),
    "max_age": (1, 31_536_000, 172_800.0),
    "reserve_mb": (0, 1_048_576, 64.0),
    "dead_letter_mb": (0, 1024, 16.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolSettings:
    """A `SpoolConfig` with nothing left out."""

    path: str
    formers: tuple[str, ...] = ()
    """The folder's names in earlier versions."""
    max_bytes: int = 512 * MEBIBYTE
    max_age: float = 172_800.0
    reserve_bytes: int = 64 * MEBIBYTE
    durability: Durability = "os"
    segment_bytes: int = SEGMENT_BYTES
    dead_letter_bytes: int = 16 * MEBIBYTE
    key_text: Callable[[], str] | None = field(default=None, repr=False)

    @property
    def is_synced(self) -> bool:
        """Whether what is written must survive the loss of power."""
        return self.durability == "disk"

    @property
    def is_write_ahead(self) -> bool:
        """Whether a batch is on disk before its first attempt."""
        return self.durability != "memory"


def resolve_spool(
    given: SpoolConfig | None, environment: Environment, outlets: Iterable[OutletConfig]
) -> SpoolSettings:
    """
    Complete a spool's configuration from keyword, `SURGETANK_SPOOL_*` and default.

    Raises:
        ConfigError: A keyword is outside its range.
    """
    given = given or SpoolConfig()
    numbers = {name: _number(name, given, environment) for name in RANGES}
    durability = given.durability or environment.choice("SURGETANK_SPOOL_DURABILITY", DURABILITIES) or "os"
    path = named_folder(given, environment)
    max_bytes = int(numbers["max_mb"] * MEBIBYTE)
    outlets = list(outlets)
    path = os.path.abspath(os.path.expanduser(path or default_folder(environment, outlets)))
    return SpoolSettings(
        path=path,
        formers=_formers(path, environment, outlets),
        max_bytes=max_bytes,
        max_age=numbers["max_age"],
        reserve_bytes=int(numbers["reserve_mb"] * MEBIBYTE),
        durability=durability,
        segment_bytes=max(_SMALLEST_SEGMENT, min(SEGMENT_BYTES, max_bytes // _SEGMENTS_MIN)),
        dead_letter_bytes=int(numbers["dead_letter_mb"] * MEBIBYTE),
        key_text=key_source(given, environment),
    )


def _number(name: str, given: SpoolConfig, environment: Environment) -> float:
    low, high, default = RANGES[name]
    value = getattr(given, name)
    if value is None:
        value = environment.number(f"SURGETANK_SPOOL_{name.upper()}", low, high)
    return float(default if value is None else value)


def key_source(given: SpoolConfig, environment: Environment) -> Callable[[], str] | None:
    """Return what reads the encryption key's text, from keyword or environment; None without a key."""
    if callable(given.encryption_key):
        return given.encryption_key
    text = given.encryption_key
    path = given.encryption_key_file
    if text is None and path is None:
        path = environment.text("SURGETANK_SPOOL_ENCRYPTION_KEY_FILE")
        text = None if path else environment.text("SURGETANK_SPOOL_ENCRYPTION_KEY")
    if path is not None:
        return lambda: _read(path)
    return None if text is None else lambda: text


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_KEYS_MAX + 1)
    except (OSError, ValueError) as error:
        # Who has mistaken this setting for the other one has put the key here, so only what is a path is repeated.
        why = error.strerror if isinstance(error, OSError) else "not a text"
        named = path if os.path.isabs(path) or os.path.exists(path) else HIDDEN
        raise ConfigError("spool.encryption_key_file", named, f"a readable text file ({why})") from None
    if len(text) > _KEYS_MAX:
        raise ConfigError("spool.encryption_key_file", HIDDEN, f"a file of at most {_KEYS_MAX:,} characters")
    return text


def is_key_usable(given: SpoolConfig | None, environment: Environment) -> bool:
    """
    Whether what the environment says of the encryption key is of use, or is not needed; logs why it is not.

    Without its key nothing may be stored: whoever asks for encryption would rather lose what memory cannot hold than find it
    readable on disk.
    """
    given = given or SpoolConfig()
    source = key_source(given, environment)
    if given.encryption_key is not None or given.encryption_key_file is not None or source is None:
        return True
    try:
        Cipher(source())
    except ConfigError as error:
        file = "SURGETANK_SPOOL_ENCRYPTION_KEY_FILE"
        name = file if environment.text(file) is not None else "SURGETANK_SPOOL_ENCRYPTION_KEY"
        then = "nothing is stored, because it would not be encrypted"
        environment.ignore(name, error.permitted, is_shown=False, then=then)
        return False
    return True


def named_folder(given: SpoolConfig | None, environment: Environment) -> str | None:
    """Return the folder that keyword or environment name, or the private one in it where all users share that; None for neither."""
    path = (
        os.fspath(given.dir) if given is not None and given.dir is not None else environment.text("SURGETANK_SPOOL_DIR")
    )
    return None if path is None else private_folder(os.path.expanduser(path))


def private_folder(path: str) -> str:
    """
    Return a folder as it is, or the user's own in it where others write there, too.

    So it is with `/tmp`, with a volume that is mounted as a temporary one (mode 1777), with Kubernetes's empty folders (0777) and with
    volumes that belong to root and a group: what is made there is ours, and closed; what lies there can be planted.
    """
    if not hasattr(os, "geteuid"):
        return path
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return path  # It will be made, or the spool will say why it cannot be.
    user = os.geteuid()
    is_for_all = bool(found.st_mode & stat.S_IWOTH)
    if found.st_mode & stat.S_ISVTX and is_for_all:
        is_shared = True
    elif found.st_uid == user:
        # One that has become open and is our spool is closed again, by who writes there.
        is_shared = is_for_all and not _has_only_ours(path, or_nothing=False)
    else:
        is_shared = found.st_uid == 0 and bool(found.st_mode & (stat.S_IWOTH | stat.S_IWGRP))
        is_shared = is_shared and os.access(path, os.W_OK | os.X_OK)
    return os.path.join(path, f"{PRIVATE_PREFIX}{user}") if is_shared and stat.S_ISDIR(found.st_mode) else path


def is_to_be_closed(path: str) -> bool:
    """Whether a folder is ours and open to others, and whoever writes there closes it: nothing but ours is in it."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    is_ours = hasattr(os, "geteuid") and found.st_uid == os.geteuid() and stat.S_ISDIR(found.st_mode)
    is_open = bool(stat.S_IMODE(found.st_mode) & 0o077) and not found.st_mode & stat.S_ISVTX
    return is_ours and is_open and _has_only_ours(path, or_nothing=True)


def _has_only_ours(path: str, *, or_nothing: bool) -> bool:
    try:
        names = os.listdir(path)
    except OSError:
        return False
    return all(name.startswith(OUR_NAMES) for name in names) and (or_nothing or bool(names))


def default_folder(environment: Environment, outlets: Iterable[OutletConfig]) -> str:
    """
    Return the folder for these destinations, below the user's state directory.

    Processes adopt each other's orphans and send them to their own endpoint with their own credentials, so only processes that send to
    the same place may meet in one folder. Its name is a digest of what tells places apart: URLs, the names of the headers, and the
    values of those that name a tenant; and, where there are credentials, who uses them. The credentials themselves are not in it:
    whoever sees the name could test guesses, and the next token would have another folder.
    """
    digest = hashlib.blake2b(digest_size=8, person=b"surgetank 2")
    service = environment.service_name()
    for outlet in outlets:
        headers = {name.lower(): value for name, value in outlet.headers.items()}
        has_credentials = bool(headers.keys() - _TENANTS) or redaction.url(outlet.url) != outlet.url
        place = (
            redaction.url(outlet.url),
            sorted((name, value if name in _TENANTS else "") for name, value in headers.items()),
            outlet.client_certificate_file,
            service if has_credentials else "",
        )
        digest.update(repr(place).encode())
    return os.path.join(state_folder(environment), digest.hexdigest())


def former_folder(environment: Environment, outlets: Iterable[OutletConfig]) -> str:
    """Return what `default_folder` was in earlier versions, whose backlog may still be there."""
    digest = hashlib.blake2b(digest_size=8)
    for outlet in outlets:
        digest.update(repr((outlet.url, sorted(outlet.headers.items()), outlet.client_certificate_file)).encode())
    return os.path.join(state_folder(environment), digest.hexdigest())


def _formers(path: str, environment: Environment, outlets: list[OutletConfig]) -> tuple[str, ...]:
    # A drop-in class has the folder of its one destination.
    groups = [outlets, *([outlet] for outlet in outlets)]
    found = [former_folder(environment, group) for group in groups if default_folder(environment, group) == path]
    return tuple(dict.fromkeys(map(os.path.abspath, found)))


def state_folder(environment: Environment) -> str:
    """Return the folder that has the default folders of all destinations in it."""
    return os.path.join(
        _named_state(environment) or os.path.join(os.path.expanduser("~"), ".local", "state"), "surgetank"
    )


def _named_state(environment: Environment) -> str | None:
    path = environment.text("XDG_STATE_HOME")
    # Relative ones are to be ignored, says the specification.
    return path if path is not None and os.path.isabs(path) else None


def names_folder(given: SpoolConfig | None, environment: Environment) -> bool:
    """Whether keyword or environment name a folder."""
    return named_folder(given, environment) is not None


def is_homeless(given: SpoolConfig | None, environment: Environment) -> bool:
    """
    Whether no folder is named and there is no home for a default one.

    So it is for a user without an entry in the system's list and without `HOME`, as containers have them. `~` would
    stay as it is, and a folder of that name would be made in whatever folder the application runs in.
    """
    if names_folder(given, environment):
        return False
    return _named_state(environment) is None and not os.path.isabs(os.path.expanduser("~"))
