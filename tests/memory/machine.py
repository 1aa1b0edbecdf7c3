"""A machine made of files: fake `/proc` and `/sys` trees, as the kernel writes them."""

import mmap
import os

MIB = 1024 * 1024
V1_NONE = 9223372036854771712
_V2_LINE = "35 24 0:30 {base} {folder} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
_V1_LINE = "36 25 0:32 {base} {folder} rw,nosuid - cgroup cgroup rw,memory"


class Machine:
    """
    A tree below `root` that a probe takes for the machine's.

    It begins with other mounts than those of control groups, as every machine has.
    """

    def __init__(self, root):
        self.root = str(root)
        self._mounts = [
            "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw",
            "31 22 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755",
            "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
        ]
        self._groups = ["12:cpu,cpuacct:/elsewhere"]

    def write(self, path, text):
        """Write a file at an absolute path of the fake machine."""
        full = os.path.join(self.root, path.lstrip("/"))
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as file:
            file.write(text if isinstance(text, bytes) else str(text).encode())

    def remove(self, path):
        """Remove one file."""
        os.remove(os.path.join(self.root, path.lstrip("/")))

    def mount_v2(self, base="/", folder="/sys/fs/cgroup"):
        """Mount the unified hierarchy, or the part of it below `base`."""
        self._mounts.append(_V2_LINE.format(base=base, folder=folder))
        self.write("/proc/self/mountinfo", "\n".join(self._mounts) + "\n")

    def mount_v1(self, base="/", folder="/sys/fs/cgroup/memory"):
        """Mount version 1's memory controller, or the part of it below `base`."""
        self._mounts.append(_V1_LINE.format(base=base, folder=folder))
        self.write("/proc/self/mountinfo", "\n".join(self._mounts) + "\n")

    def join_v2(self, path):
        """Put the process into a control group of version 2."""
        self._join("0::" + path)

    def join_v1(self, path):
        """Put the process into a control group of version 1."""
        self._join("4:hugetlb,memory:" + path)

    def _join(self, line):
        kind = line.rpartition(":")[0]
        self._groups = [each for each in self._groups if each.rpartition(":")[0] != kind] + [line]
        self.write("/proc/self/cgroup", "\n".join(self._groups) + "\n")

    def level_v2(self, path, current, highest="max", high="max", inactive_file=0):
        """Write what version 2 says of one control group, sizes in MiB."""
        self.write(f"{path}/memory.current", f"{current * MIB}\n")
        self.write(f"{path}/memory.max", _size(highest))
        self.write(f"{path}/memory.high", _size(high))
        self.write(
            f"{path}/memory.stat", f"anon 1\nfile 2\ninactive_anon 3\ninactive_file {inactive_file * MIB}\nslab 4\n"
        )

    def level_v1(self, path, usage, limit=None, inactive_file=0, hierarchical=None):
        """Write what version 1 says of one control group, sizes in MiB."""
        limit = V1_NONE if limit is None else limit * MIB
        hierarchical = limit if hierarchical is None else hierarchical * MIB
        self.write(f"{path}/memory.usage_in_bytes", f"{usage * MIB}\n")
        self.write(f"{path}/memory.limit_in_bytes", f"{limit}\n")
        self.write(
            f"{path}/memory.stat",
            f"cache 1\ninactive_file 7\nhierarchical_memory_limit {hierarchical}\n"
            f"total_inactive_file {inactive_file * MIB}\n",
        )

    def process(self, address_space, resident):
        """Write the process's own figures, in MiB."""
        pages = MIB // mmap.PAGESIZE
        self.write("/proc/self/statm", f"{address_space * pages} {resident * pages} 9 1 0 8 0\n")

    def limit_address_space(self, soft):
        """Write `/proc/self/limits` with a soft limit on address space in MiB, or `unlimited`."""
        soft = "unlimited" if soft == "unlimited" else soft * MIB
        self.write(
            "/proc/self/limits",
            "Limit                     Soft Limit           Hard Limit           Units     \n"
            "Max cpu time              unlimited            unlimited            seconds   \n"
            f"Max address space         {soft!s:<20} unlimited            bytes     \n"
            "Max file locks            unlimited            unlimited            locks     \n",
        )

    def host(self, total, available):
        """Write the whole machine's memory, in MiB."""
        self.write(
            "/proc/meminfo",
            f"MemTotal:  {total * 1024} kB\nMemFree:   1 kB\nMemAvailable: {available * 1024} kB\nHugePages_Total: 0\n",
        )


def _size(mebibytes):
    return f"{mebibytes}\n" if isinstance(mebibytes, str) else f"{mebibytes * MIB}\n"
