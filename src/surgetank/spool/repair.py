"""Salvage of what the checksums vouch for: damaged segments of dead owners are written anew, the originals kept.

Owns: the locks of the folders that are being repaired.
Threads: one.
Invariants: living owners' folders are left alone; at every moment a segment's name has either the original or the
complete new one, and an original is copied and synced before it is replaced; whoever adopts what was repaired
recovers exactly the items that are still there, and counts no loss that was told here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from surgetank.model import Clock
from surgetank.spool.check import REPAIRABLE, Finding, Report, check_owner, check_segment
from surgetank.spool.filesystem import File, Filesystem
from surgetank.spool.folder import LOCK_NAME, SegmentName
from surgetank.spool.inspect import (
    BACKUP_PREFIX,
    Glimpse,
    Owner,
    Progress,
    glimpse,
    no_progress,
    owners,
    verify_payload,
)
from surgetank.spool.record import (
    HEAD_SIZE,
    SLOT_SIZE,
    SLOTS_MAX,
    TRAILER_SIZE,
    DamageError,
    RecordHeader,
    write_head,
    write_slot,
    write_trailer,
)

_COPY_STEP: Final = 1024 * 1024
# Somebody may be asking for the lock in the very instant in which we try to take it.
_LOCK_TRIES: Final = 3
_LOCK_PAUSE: Final = 0.01


@dataclass(slots=True)
class Patient:
    """One damaged segment."""

    owner: Owner
    name: SegmentName
    findings: list[Finding]
    kept_records: int = 0
    kept_items: int = 0
    lost_items: int = 0
    is_repaired: bool = False
    trouble: str = ""
    """Why it was left as it is."""

    @property
    def file(self) -> str:
        """Its path below the spool's folder."""
        return f"{self.owner.name}/{self.name}"

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "file": self.file,
            "kinds": [finding.kind.value for finding in self.findings],
            "kept_records": self.kept_records,
            "kept_items": self.kept_items,
            "lost_items": self.lost_items,
            "is_repaired": self.is_repaired,
            "trouble": self.trouble,
        }


@dataclass(slots=True)
class Repair:
    """What is to be repaired in a spool, or was."""

    path: str
    patients: list[Patient] = field(default_factory=list)
    others: list[Finding] = field(default_factory=list)
    """Damage that a repair cannot mend."""
    living: list[str] = field(default_factory=list)
    """Owners that were left alone."""
    backup: str = ""
    """The folder that has the originals."""

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "path": self.path,
            "backup": self.backup or None,
            "segments": [patient.as_data() for patient in self.patients],
            "not_repairable": [finding.as_data() for finding in self.others],
            "living_owners": self.living,
        }


def plan(filesystem: Filesystem, path: str, progress: Progress = no_progress) -> Repair:
    """
    Return what there is to repair, having changed nothing.

    Raises:
        OSError: The spool's folder cannot be read.
    """
    repair = Repair(path)
    all_owners = owners(filesystem, path)
    for number, owner in enumerate(all_owners, 1):
        if owner.state == "living":
            repair.living.append(owner.name)
        else:
            _examine(filesystem, owner, repair)
        progress(number, len(all_owners))
    return repair


def _examine(filesystem: Filesystem, owner: Owner, repair: Repair) -> None:
    by_file: dict[str, list[Finding]] = {}
    for finding in check_owner(filesystem, owner, Report("")):
        if finding.kind in REPAIRABLE:
            by_file.setdefault(finding.file, []).append(finding)
        elif finding.is_damage:
            repair.others.append(finding)
    for name in owner.segments:
        findings = by_file.get(f"{owner.name}/{name}")
        if findings:
            patient = Patient(owner, name, findings, lost_items=sum(finding.items for finding in findings))
            _count(filesystem, patient)
            repair.patients.append(patient)


def _count(filesystem: Filesystem, patient: Patient) -> None:
    file = filesystem.open(patient.owner.place_of(patient.name), writable=False)
    try:
        for _, header in _good(file, glimpse(file, patient.name)):
            patient.kept_records += 1
            patient.kept_items += header.items
    finally:
        file.close()


def repair(filesystem: Filesystem, path: str, clock: Clock, progress: Progress = no_progress) -> Repair:
    """
    Write the damaged segments of dead owners anew.

    Args:
        filesystem: The way to the disk.
        path: The spool's folder.
        clock: Names the backup; waits for locks.
        progress: Told after each segment.

    Raises:
        OSError: The spool's folder cannot be read.
    """
    planned = plan(filesystem, path)
    total = len(planned.patients)
    done = 0
    for owner in {patient.owner.name: patient.owner for patient in planned.patients}.values():
        patients = [patient for patient in planned.patients if patient.owner is owner]
        lock = _take_lock(filesystem, owner, clock)
        if lock is None:
            _leave(patients, "somebody else has just taken it over")
            continue
        try:
            for patient in patients:
                _repair_one(filesystem, planned, patient, clock)
                done += 1
                progress(done, total)
        finally:
            lock.close()
    return planned


def _leave(patients: Iterable[Patient], why: str) -> None:
    for patient in patients:
        patient.trouble = why


def _take_lock(filesystem: Filesystem, owner: Owner, clock: Clock) -> File | None:
    """Return a dead owner's lock, taken; None when it is not dead, or somebody is just taking over."""
    place = os.path.join(owner.path, LOCK_NAME)
    for _ in range(_LOCK_TRIES):
        try:
            try:
                lock = filesystem.open(place)
            except FileNotFoundError:
                lock = filesystem.create(place)
        except OSError:
            return None
        if lock.try_lock() and lock.is_at(place):
            return lock
        lock.close()
        clock.sleep(_LOCK_PAUSE)
    return None


def _repair_one(filesystem: Filesystem, repair: Repair, patient: Patient, clock: Clock) -> None:
    try:
        if not repair.backup:
            repair.backup = _make_backup_folder(filesystem, repair.path, clock)
        folder = os.path.join(repair.path, repair.backup, patient.owner.name)
        filesystem.make_folder(folder)
        original = patient.owner.place_of(patient.name)
        kept = os.path.join(folder, str(patient.name))
        _copy(filesystem, original, kept)
        filesystem.sync_folder(folder)
        _replace(filesystem, patient, original, kept + ".new")
        filesystem.sync_folder(patient.owner.path)
    except (OSError, DamageError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        patient.trouble = f"it could not be repaired and is as it was: {reason}"
    else:
        patient.is_repaired = True


def _make_backup_folder(filesystem: Filesystem, path: str, clock: Clock) -> str:
    stem = BACKUP_PREFIX + time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(clock.now()))
    taken = filesystem.names(path)
    name = next(each for number in range(1, 1000) if (each := stem if number == 1 else f"{stem}-{number}") not in taken)
    filesystem.make_folder(os.path.join(path, name))
    filesystem.sync_folder(path)
    return name


def _copy(filesystem: Filesystem, source: str, target: str) -> None:
    reading = filesystem.open(source, writable=False)
    try:
        writing = filesystem.create(target)
        try:
            for offset in range(0, reading.size(), _COPY_STEP):
                writing.write_at(offset, reading.read_at(offset, _COPY_STEP))
            writing.sync()
        finally:
            writing.close()
    finally:
        reading.close()


def _replace(filesystem: Filesystem, patient: Patient, original: str, making: str) -> None:
    """Write the new segment beside the backup, see that it is good, and give it the original's name."""
    source = filesystem.open(original, writable=False)
    try:
        target = filesystem.create(making)
        try:
            _write_anew(source, glimpse(source, patient.name), target)
            target.sync()
            _verify(target, patient.name)
        except BaseException:
            with suppress(OSError):
                filesystem.unlink(making)
            raise
        finally:
            target.close()
    finally:
        source.close()
    filesystem.rename(making, original)


def _verify(file: File, name: SegmentName) -> None:
    if any(check_segment(file, glimpse(file, name), "")):
        raise DamageError("what was written is not what was meant; is the disk failing?")


def _write_anew(source: File, seen: Glimpse, target: File) -> None:
    """Write a sealed segment that has the good pending records, and has what is missing between them acknowledged."""
    good = _good(source, seen)
    end = seen.found.end
    floor = good[0][1].sequence if good else end
    gaps: list[tuple[int, int]] = []
    reached = floor
    for _, header in good:
        if header.sequence > reached:
            gaps.append((reached, header.sequence - reached))
        reached = header.sequence + header.items
    if end > reached:
        gaps.append((reached, end - reached))
    # The number, the base and the end are the original's: the distances between segments stay what they are.
    slots = min(SLOTS_MAX, len(gaps) + max(1, len(good)))
    head = replace(seen.head, slots=slots, floor=floor, end=end, records=len(good))
    acks = b"".join(write_slot(sequence, items) for sequence, items in gaps[:slots])
    target.write_at(0, write_head(head) + acks + b"\xff" * (slots * SLOT_SIZE - len(acks)))
    offset = HEAD_SIZE + slots * SLOT_SIZE
    for place, header in good:
        length = header.size - TRAILER_SIZE
        for done in range(0, length, _COPY_STEP):
            target.write_at(offset + done, source.read_at(place + done, min(_COPY_STEP, length - done)))
        target.write_at(offset + length, write_trailer(header.sequence, header.items))
        offset += header.size


def _good(file: File, seen: Glimpse) -> list[tuple[int, RecordHeader]]:
    """Return offset and header of each pending record whose payload is what it should be."""
    good = []
    for offset, header in seen.pending():
        try:
            verify_payload(file, offset, header)
        except DamageError:
            continue
        good.append((offset, header))
    return good
