"""Encryption at rest: an AEAD over each payload, with key identifiers so that keys can be changed.

Owns: the keys. Threads: any.
Invariants: what is decrypted is what was encrypted, for the very batch that the record says it is.

Needs the package `cryptography` (`surgetank[encryption]`); nothing imports it unless a key is configured.
"""

from __future__ import annotations

import binascii
import os
from base64 import b64decode
from typing import Any, Final

from surgetank.errors import ConfigError, SpoolKeyError
from surgetank.model import Batch

KEY_BYTES: Final = 32
# Both algorithms take nonces of 96 bits. Random ones are safe for 2**32 records under one key (NIST SP 800-38D, 8.3).
NONCE_BYTES: Final = 12
_ALGORITHMS: Final = {"aes-256-gcm": "AESGCM", "chacha20-poly1305": "ChaCha20Poly1305"}
_PERMITTED: Final = (
    "lines of `id:base64` or `id:algorithm:base64`, where the key has 32 bytes and the algorithm is one of "
    + ", ".join(_ALGORITHMS)
)


class Cipher:
    """
    Encrypts with the first key, decrypts with any.

    Args:
        text: Lines of `id:base64` or `id:algorithm:base64`; empty lines and those that begin with # are passed over.

    Raises:
        ConfigError: The text holds no key, or `cryptography` is not installed.
    """

    def __init__(self, text: str) -> None:
        self._keys: dict[str, Any] = {}
        if not isinstance(text, str):
            raise ConfigError("spool.encryption_key", "…", _PERMITTED)
        for line in text.splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                key_id, key = _parse(line.strip())
                if key_id in self._keys:
                    # What was encrypted with the one would be taken for damaged with the other.
                    raise ConfigError("spool.encryption_key", "…", f"one key of each name; there are two of {key_id!r}")
                self._keys[key_id] = key
        if not self._keys:
            raise ConfigError("spool.encryption_key", "…", _PERMITTED)
        self._active = next(iter(self._keys))

    def encrypt(self, batch: Batch) -> tuple[bytes, str]:
        """Return the payload of a batch and the key's identifier."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._keys[self._active].encrypt(nonce, batch.body, _bound_to(batch))
        return nonce + sealed, self._active

    def decrypt(self, batch: Batch, key_id: str, payload: bytes) -> bytes:
        """
        Return the body of the batch whose payload this is.

        Raises:
            SpoolKeyError: There is no such key, or it is another one of the same name.
        """
        from cryptography.exceptions import InvalidTag

        key = self._keys.get(key_id)
        if key is None:
            raise SpoolKeyError(f"is encrypted with key {key_id!r}, which is not among those configured")
        try:
            body: bytes = key.decrypt(payload[:NONCE_BYTES], payload[NONCE_BYTES:], _bound_to(batch))
        except InvalidTag:
            raise SpoolKeyError(
                f"cannot be decrypted: the key {key_id!r} is not the one it was encrypted with"
            ) from None
        return body


def _bound_to(batch: Batch) -> bytes:
    """Return what a payload is bound to, so that it cannot be passed off as another batch's."""
    return repr((batch.id, batch.signal.value, batch.lane.value, batch.items, batch.encoding, batch.raw_size)).encode()


def _parse(line: str) -> tuple[str, Any]:
    # The line is a secret, so no message repeats it.
    parts = [part.strip() for part in line.split(":")]
    key_id, algorithm, encoded = (parts[0], "aes-256-gcm", parts[1]) if len(parts) == 2 else (*parts, "", "", "")[:3]
    try:
        key = b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if (
        len(parts) not in (2, 3)
        or not 0 < len(key_id.encode()) <= 255
        or algorithm not in _ALGORITHMS
        or len(key) != KEY_BYTES
    ):
        raise ConfigError("spool.encryption_key", "…", _PERMITTED)
    return key_id, _algorithm(algorithm)(key)


def _algorithm(name: str) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers import aead
    except ImportError:
        raise ConfigError("spool.encryption_key", "…", "set only where surgetank[encryption] is installed") from None
    return getattr(aead, _ALGORITHMS[name])
