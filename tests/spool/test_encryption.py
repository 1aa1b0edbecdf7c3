"""Encryption at rest: what is stored cannot be read without the key, and waits for whoever has it."""

import sys
from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.ciphers import aead

from fakes.batches import batch
from fakes.spools import KIB, Process
from surgetank.errors import ConfigError, SpoolKeyError
from surgetank.model import Lane, Outcome, Signal, Verdict
from surgetank.spool.check import Kind, check
from surgetank.spool.dead_letters import parse
from surgetank.spool.encryption import KEY_BYTES, NONCE_BYTES, Cipher
from surgetank.spool.record import SLOT_SIZE, DamageError, crc32, read_record_header, write_record, write_trailer
from surgetank.testing.filesystem import Fault


def key(name, byte, algorithm=""):
    """Return a line of key text."""
    encoded = b64encode(bytes([byte]) * KEY_BYTES).decode()
    return ":".join(part for part in (name, algorithm, encoded) if part)


def process_with(text, filesystem=None, clock=None, **changes):
    """Return a process with these keys."""
    return Process(filesystem, clock, key_text=None if text is None else (lambda: text), **changes)


@pytest.mark.parametrize("algorithm", ["", "aes-256-gcm", "chacha20-poly1305"])
def test_what_was_encrypted_is_decrypted(algorithm):
    """With either algorithm; without one it is AES."""
    cipher = Cipher(key("k1", 1, algorithm))
    given = batch(3, body=b"secret " * 20)

    payload, key_id = cipher.encrypt(given)

    assert key_id == "k1"
    assert len(payload) == NONCE_BYTES + len(given.body) + 16
    assert b"secret" not in payload
    assert cipher.decrypt(given, key_id, payload) == given.body


def test_no_two_payloads_are_alike():
    """Or who reads them would know which batches are the same."""
    cipher = Cipher(key("k1", 1))

    assert len({cipher.encrypt(batch(body=b"same"))[0] for _ in range(20)}) == 20


@pytest.mark.parametrize(
    "changes",
    [{"items": 4}, {"name": "other"}, {"lane": Lane.CRITICAL}, {"signal": Signal.LOGS}],
    ids=str,
)
def test_a_payload_cannot_be_passed_off_as_another_batchs(changes):
    """It is bound to what its record says."""
    cipher = Cipher(key("k1", 1))
    payload, key_id = cipher.encrypt(batch(items=3, body=b"secret"))

    with pytest.raises(SpoolKeyError):
        cipher.decrypt(batch(**{"items": 3, "body": b"secret", **changes}), key_id, payload)


def test_every_flipped_byte_of_a_payload_is_found_out():
    """Nonce, ciphertext and tag."""
    cipher = Cipher(key("k1", 1))
    given = batch(body=b"secret")
    payload, key_id = cipher.encrypt(given)

    for place in range(len(payload)):
        changed = payload[:place] + bytes([payload[place] ^ 1]) + payload[place + 1 :]
        with pytest.raises(SpoolKeyError):
            cipher.decrypt(given, key_id, changed)


def test_keys_are_changed_by_putting_the_new_one_first():
    """The old one still decrypts."""
    old, new = Cipher(key("2023", 1)), Cipher(f"# rotated\n\n{key('2024', 2)}\n  {key('2023', 1)}\n")
    given = batch(body=b"secret")
    payload, key_id = old.encrypt(given)

    assert new.decrypt(given, key_id, payload) == b"secret"
    assert new.encrypt(given)[1] == "2024"
    with pytest.raises(SpoolKeyError, match="2024"):
        old.decrypt(given, *reversed(new.encrypt(given)))


def test_another_key_of_the_same_name_is_told_from_a_missing_one():
    """The operator must look for different things."""
    payload, key_id = Cipher(key("k1", 1)).encrypt(batch(body=b"secret"))

    with pytest.raises(SpoolKeyError, match="not the one"):
        Cipher(key("k1", 2)).decrypt(batch(body=b"secret"), key_id, payload)
    with pytest.raises(SpoolKeyError, match="not among"):
        Cipher(key("k2", 1)).decrypt(batch(body=b"secret"), key_id, payload)


@pytest.mark.parametrize(
    "text",
    [None, key("k1", 2), key("k2", 1), key("k1", 1, "chacha20-poly1305")],
    ids=["no key", "another key", "another name", "another algorithm"],
)
def test_without_the_key_everything_waits_for_a_process_that_has_it(text, caplog):
    """It is found and counted as waiting, not as lost; it is not delivered, and the right key delivers it."""
    owner = process_with(key("k1", 1))
    for n in range(10):
        owner.spill(str(n), 2)
    owner.die()
    stranger = process_with(text, owner.filesystem, owner.clock)

    stranger.adopt()

    assert stranger.recovered == 20
    assert stranger.lease() is None
    assert stranger.lost == {}
    assert stranger.spool.available_items() == 20
    assert not stranger.spool.has_available
    assert "stays where it is" in caplog.text
    stranger.disk.close()
    heir = process_with(f"{key('k0', 9)}\n{key('k1', 1)}", owner.filesystem, owner.clock)
    heir.adopt()
    assert heir.recovered == 20
    assert heir.drain() == [str(n) for n in range(10)]
    assert heir.segments() == []


def test_what_a_stranger_stores_itself_is_delivered():
    """Only what it cannot read is passed over."""
    owner = process_with(key("k1", 1))
    owner.spill("owners")
    stranger = process_with(None, owner.die(), owner.clock)
    stranger.adopt()
    stranger.spill("strangers")

    assert stranger.drain() == ["strangers"]


def test_what_was_stored_in_the_clear_is_read_with_a_key_too():
    """Encryption may be turned on at any time."""
    owner = process_with(None)
    owner.spill("a")
    heir = process_with(key("k1", 1), owner.die(), owner.clock)
    heir.adopt()

    assert heir.drain() == ["a"]


@pytest.mark.parametrize("algorithm", ["aes-256-gcm", "chacha20-poly1305"])
def test_nothing_that_was_sent_can_be_read_in_the_files(algorithm):
    """Segments and dead letters."""
    process = process_with(key("k1", 1, algorithm))
    body = b"card 4111 1111 1111 1111"
    process.spool.append(batch(name="a", body=body))
    process.disk.dead_letters.bury(batch(name="b", body=body), Verdict(outcome=Outcome.PERMANENT, cause="400"))

    for path, inode in process.filesystem.files.items():
        assert b"4111" not in inode.data, path
        assert b"card" not in inode.data, path
    (letter,) = [path for path in process.filesystem.files if path.endswith(".letter")]
    said, buried = parse(bytes(process.filesystem.files[letter].data))
    assert process.spool._cipher.decrypt(buried, said["key_id"], buried.body) == body


def test_what_a_failed_sync_left_in_doubt_is_written_again_encrypted():
    """And can be read."""
    process = process_with(key("k1", 1), durability="disk")
    process.append("a", size=200)
    process.filesystem.faults.append(Fault("sync"))
    process.spool.sync()

    assert not any(b"aaaa" in inode.data for inode in process.filesystem.files.values())
    heir = process_with(key("k1", 1), process.die(), process.clock)
    heir.adopt()
    assert heir.drain() == ["a"]


def test_what_cannot_be_read_obeys_the_limits_like_the_rest():
    """Or it would fill the disk for ever."""
    owner = process_with(key("k1", 1), max_bytes=256 * KIB)
    for n in range(20):
        owner.spill(str(n), size=8 * KIB)
    stranger = process_with(None, owner.die(), owner.clock, max_bytes=256 * KIB)
    stranger.adopt()
    stranger.lease()

    for n in range(20):
        assert stranger.spill(f"own{n}", size=8 * KIB) is not None

    stranger.note()
    assert stranger.lost["spool_full"] > 0
    assert stranger.disk.folder.used_bytes <= 256 * KIB


SECRET = b64encode(b"\x5a" * KEY_BYTES).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment",
        SECRET,
        f":{SECRET}",
        f"k1:des:{SECRET}",
        f"k1:aes-256-gcm:{SECRET}:more",
        f"k1:{SECRET[:-4]}",
        f"k1:{SECRET}{SECRET}",
        f"k1:{SECRET[:-1]}!",
        f"k1:é{SECRET}",
        f"{'k' * 256}:{SECRET}",
        f"good:{SECRET}\nbad:{SECRET[:20]}",
        f"same:{SECRET}\nsame:{b64encode(bytes(KEY_BYTES)).decode()}",
    ],
    ids=[
        "empty", "comment", "no name", "empty name", "algorithm", "too many", "short", "long", "alphabet", "not ascii",
        "long name", "second line", "twice the same name",
    ],
)  # fmt: skip
def test_a_bad_key_text_is_refused_without_being_repeated(text):
    """It may hold a key that is good but for a slip."""
    with pytest.raises(ConfigError) as caught:
        Cipher(text)

    assert caught.value.field == "spool.encryption_key"
    assert caught.value.permitted
    shown = f"{caught.value!r} {caught.value} {caught.value.args} {caught.value.__context__}"
    assert SECRET[:12] not in shown
    assert "é" not in shown


def test_a_key_source_that_returns_no_text_is_refused():
    """Bytes, for instance."""
    with pytest.raises(ConfigError) as caught:
        process_with(f"k1:{SECRET}".encode())

    assert SECRET[:12] not in str(caught.value)


def test_without_the_package_a_key_is_refused(monkeypatch):
    """With the name of what is to be installed."""
    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)

    with pytest.raises(ConfigError, match=r"surgetank\[encryption\]"):
        Cipher(f"k1:{SECRET}")


def test_two_lists_of_fields_never_come_to_the_same():
    """What a payload is bound to has each field behind its length, and the key's name is among them."""
    cipher = Cipher(key("k1", 1) + "\n" + key("k1', 'x", 1))
    payload, key_id = cipher.encrypt(batch(3, name="b', 'spans", body=b"secret"))

    assert cipher.decrypt(batch(3, name="b', 'spans", body=b"secret"), key_id, payload) == b"secret"
    with pytest.raises(SpoolKeyError):
        cipher.decrypt(batch(3, name="b', 'spans", body=b"secret"), "k1', 'x", payload)


def bound_as_before(algorithm, given, body):
    """Return a payload as version 1 wrote it."""
    nonce = bytes(NONCE_BYTES)
    said = (given.id, given.signal.value, given.lane.value, given.items, given.encoding, given.raw_size)
    return nonce + algorithm(bytes([1]) * KEY_BYTES).encrypt(nonce, body, repr(said).encode())


@pytest.mark.parametrize(("algorithm", "kind"), [("", aead.AESGCM), ("chacha20-poly1305", aead.ChaCha20Poly1305)])
def test_what_an_earlier_version_has_encrypted_is_read(algorithm, kind):
    """In records and in letters; what is written now says that it is of another version."""
    text = key("k1", 1, algorithm)
    process = process_with(text)
    given = batch(3, name="old", body=b"x" * 100)
    record = process.spill("old", 3)
    (path,) = process.segments()
    data = process.filesystem.files[path].data
    header = read_record_header(bytes(data[record.offset :]))
    assert header.version == 2

    payload = bound_as_before(kind, given, b"y" * 100)
    written = bytearray(write_record(given, header.sequence, payload, key_id="k1"))
    written[4] = 1
    end = header.header_size - 4
    written[end : end + 4] = crc32(bytes(written[:end])).to_bytes(4, "little")
    data[record.offset :] = written
    process.die()

    heir = process_with(text, process.filesystem, process.clock)
    heir.adopt()
    held = heir.lease()
    assert (held.batch.body, heir.lost) == (b"y" * 100, {})


@pytest.mark.parametrize("size", [0, 1, NONCE_BYTES - 1, NONCE_BYTES, NONCE_BYTES + 15])
def test_a_payload_without_nonce_and_tag_is_damage(size):
    """Whoever wrote it: it is counted, and what is behind it is read."""
    process = process_with(key("k1", 1))
    process.spill("first", 3)
    record = process.spill("second", 4)
    (path,) = process.segments()
    data = process.filesystem.files[path].data
    second = bytes(data[record.offset :])
    short = write_record(batch(2, name="short"), record.sequence, b"n" * size, key_id="k1")
    header = read_record_header(second)
    shifted = bytearray(second)
    shifted[16:24] = (record.sequence + 2).to_bytes(8, "little")
    end = header.header_size - 4
    shifted[end : end + 4] = crc32(bytes(shifted[:end])).to_bytes(4, "little")
    data[record.offset :] = short + bytes(shifted[:-SLOT_SIZE]) + write_trailer(record.sequence + 2, 4)
    process.die()

    assert [each.kind for each in check(process.filesystem, "/spool").damage] == [Kind.PAYLOAD]
    heir = process_with(key("k1", 1), process.filesystem, process.clock)
    heir.adopt()
    assert heir.drain() == ["first", "second"]
    assert (heir.recovered, heir.lost) == (9, {"damaged": 2})
    with pytest.raises(DamageError):
        Cipher(key("k1", 1)).decrypt(batch(), "k1", b"n" * size)
