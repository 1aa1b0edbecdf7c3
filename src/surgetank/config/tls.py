"""TLS files: as keywords and OTLP's variables say, and whether they hold what they should.

Owns: no state. Threads: any.
Invariants: a file that a variable names and that is of no use is passed over with one line, so that the system's certificates
count; one that a keyword names is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from surgetank.config.environment import OTLP, Environment
from surgetank.errors import ConfigError

_FILE: Final = "the path of a file that exists"
_KEYWORDS: Final = {
    "CERTIFICATE": "certificate_file",
    "CLIENT_KEY": "client_key_file",
    "CLIENT_CERTIFICATE": "client_certificate_file",
}


REQUESTS: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""What the stock HTTP exporters read, because `requests` does: CA certificates, in a file or in a folder as `c_rehash` makes it."""


@dataclass(slots=True)
class TlsFiles:
    """Paths of PEM files."""

    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None


def resolve_tls_files(
    infix: str,
    environment: Environment,
    *,
    certificate_file: str | None,
    client_key_file: str | None,
    client_certificate_file: str | None,
    is_used: bool,
    is_http: bool = True,
) -> TlsFiles:
    """
    Return the files that keywords and variables name.

    Args:
        infix: Of the signal's own variables, which count before the common ones.
        environment: The variables.
        certificate_file: The keyword.
        client_key_file: The keyword.
        client_certificate_file: The keyword.
        is_used: Whether the endpoint speaks TLS, so that what is in them matters.
        is_http: Whether the variables that `requests` reads count, after OTLP's own.

    Raises:
        ConfigError: A keyword names no file.
    """
    given = {
        "CERTIFICATE": certificate_file,
        "CLIENT_KEY": client_key_file,
        "CLIENT_CERTIFICATE": client_certificate_file,
    }
    found: dict[str, str | None] = {}
    said_by: dict[str, str] = {}
    for name, path in given.items():
        if path is not None:
            found[name] = _existing(_KEYWORDS[name], path)
            continue
        found[name] = None
        for variable in (f"{OTLP}{infix}{name}", f"{OTLP}{name}"):
            found[name] = environment.read(variable, _existing_of(variable), _FILE)
            if found[name] is not None:
                said_by[name] = variable
                break
    for variable in REQUESTS if is_http else ():
        if found["CERTIFICATE"] is None:
            found["CERTIFICATE"] = environment.read(
                variable, _bundle_of(variable), "the path of a file or folder that exists"
            )
            said_by["CERTIFICATE"] = variable
    if is_used:
        _pass_over_useless(found, said_by, environment)
    return TlsFiles(found["CERTIFICATE"], found["CLIENT_KEY"], found["CLIENT_CERTIFICATE"])


def locations(path: str | None) -> tuple[str | None, str | None]:
    """Return CA certificates as `ssl` takes them: the file, or the folder, that they are in."""
    return (None, path) if path is not None and os.path.isdir(path) else (path, None)


def check_authorities(name: str, path: str) -> None:
    """
    Refuse a file that is no list of CA certificates.

    Raises:
        ConfigError: It cannot be read, or holds something else.
    """
    import ssl  # What has no such file need not wait for this.

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(*locations(path))
    except (OSError, ValueError):
        raise ConfigError(name, path, "CA certificates in PEM form") from None


def check_client(name: str, certificate: str, key: str | None) -> None:
    """
    Refuse a client's certificate that is of no use with its key.

    Raises:
        ConfigError: Either cannot be read, they do not belong together, or the key is encrypted.
    """
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError):
        raise ConfigError(name, certificate, "a certificate in PEM form whose key is client_key_file") from None


def _no_password() -> str:
    # Without this, OpenSSL would ask for a key's password on the terminal.
    raise ValueError("an encrypted key has no one here to ask")


def _pass_over_useless(found: dict[str, str | None], said_by: dict[str, str], environment: Environment) -> None:
    """Leave out files that variables name and that TLS could not use; keywords' files are for the sender to refuse."""
    authorities, key, certificate = found["CERTIFICATE"], found["CLIENT_KEY"], found["CLIENT_CERTIFICATE"]
    try:
        if authorities is not None and "CERTIFICATE" in said_by:
            check_authorities("certificate_file", authorities)
    except ConfigError as error:
        _pass_over(["CERTIFICATE"], error.permitted, found, said_by, environment)
    pair = [name for name in ("CLIENT_CERTIFICATE", "CLIENT_KEY") if name in said_by]
    try:
        if certificate is not None and pair:
            check_client("client_certificate_file", certificate, key)
        elif key is not None:
            _pass_over(["CLIENT_KEY"], "given together with a client certificate", found, said_by, environment)
    except ConfigError as error:
        _pass_over(pair, error.permitted, found, said_by, environment)


def _pass_over(
    names: Sequence[str],
    permitted: str,
    found: dict[str, str | None],
    said_by: dict[str, str],
    environment: Environment,
) -> None:
    for name in names:
        if name in said_by:
            environment.ignore(said_by[name], permitted)
            found[name] = None


def _existing_of(name: str) -> Callable[[str], str]:
    return lambda path: _existing(name, path)


def _bundle_of(name: str) -> Callable[[str], str]:
    return lambda path: path if os.path.isdir(path) else _existing(name, path)


def _existing(name: str, path: object) -> str:
    # A number would be taken for an open file's.
    if isinstance(path, (str, os.PathLike)):
        text = os.fspath(path)
        try:
            if isinstance(text, str) and os.path.isfile(text):
                return text
        except ValueError:
            pass  # There is a zero byte in it.
    raise ConfigError(name, path, _FILE)
