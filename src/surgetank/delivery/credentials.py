"""Who we say we are, over whatever transport: our name, passwords and TLS files.

Owns: no state. Threads: any.
Invariants: what is refused is named without repeating a password.
"""

from __future__ import annotations

import sys
from base64 import b64encode
from typing import Final
from urllib.parse import unquote_to_bytes

from surgetank._version import __version__
from surgetank.config import OutletConfig
from surgetank.config.tls import check_authorities, check_client
from surgetank.errors import ConfigError

USER_AGENT: Final = f"surgetank/{__version__} Python/{sys.version_info.major}.{sys.version_info.minor}"
BATCH_ID_HEADER: Final = "surgetank-batch-id"


def basic(auth: str) -> str:
    """Return the header of basic authentication for the `user:password` of a URL."""
    # From the bytes that the user wrote, for nobody says which encoding the receiver expects.
    return "Basic " + b64encode(unquote_to_bytes(auth)).decode()


def check_tls_files(outlet: OutletConfig) -> None:
    """
    Refuse files that TLS could not use, now and not at the first connection.

    Raises:
        ConfigError: A certificate or key file does not hold what it should.
    """
    if outlet.certificate_file is not None:
        check_authorities("certificate_file", outlet.certificate_file)
    if outlet.client_certificate_file is not None:
        check_client("client_certificate_file", outlet.client_certificate_file, outlet.client_key_file)
    elif outlet.client_key_file is not None:
        raise ConfigError("client_key_file", outlet.client_key_file, "given together with client_certificate_file")
