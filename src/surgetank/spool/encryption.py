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
from surgetank.spool.record import BOUND, PLAIN, SEALED_MIN, DamageError

KEY_BYTES: Final = 32
# Both algorithms take nonces of 96 bits. Random ones are safe for 2**32 records under one key (NIST SP 800-38D, 8.3).
NONCE_BYTES: Final = 12
# What the bytes that a payload is bound to begin with: no other use of the same key comes to the same.
_LABEL: Final = "surgetank payload 2"
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
        sealed = self._keys[self._active].encrypt(nonce, batch.body, _bound_to(batch, self._active, BOUND))
        return nonce + sealed, self._active

    def decrypt(self, batch: Batch, key_id: str, payload: bytes, version: int = BOUND) -> bytes:
        """
        Return the body of the batch whose payload this is.

        Args:
            batch: What its record or letter says; the body does not matter.
            key_id: The key's identifier.
            payload: What `encrypt` returned.
            version: The record's or letter's, which says how the two are bound together.

        Raises:
            DamageError: It is shorter than any payload.
            SpoolKeyError: There is no such key, or it is another one of the same name.
        """
        from cryptography.exceptions import InvalidTag

        key = self._keys.get(key_id)
        if key is None:
            raise SpoolKeyError(f"is encrypted with key {key_id!r}, which is not among those configured")
        if len(payload) < SEALED_MIN:
            raise DamageError(f"payload: {len(payload)} bytes, which is less than an encrypted one has")
        try:
            bound_to = _bound_to(batch, key_id, version)
            body: bytes = key.decrypt(payload[:NONCE_BYTES], payload[NONCE_BYTES:], bound_to)
        except InvalidTag:
            raise SpoolKeyError(
                f"cannot be decrypted: the key {key_id!r} is not the one it was encrypted with"
            ) from None
        return body


def _bound_to(batch: Batch, key_id: str, version: int) -> bytes:
    """Return what a payload is bound to, so that it cannot be passed off as another batch's."""
    signal, lane = batch.signal.value, batch.lane.value
    if version == PLAIN:
        return repr((batch.id, signal, lane, batch.items, batch.encoding, batch.raw_size)).encode()
    texts = (_LABEL, key_id, batch.id, signal, lane, batch.encoding)
    fields = [text.encode("utf-8", "replace") for text in texts]
    fields += [number.to_bytes(8, "little") for number in (batch.items, batch.raw_size)]
    # With their lengths before them, no two lists of fields come to the same bytes.
    return b"".join(len(field).to_bytes(4, "little") + field for field in fields)


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
