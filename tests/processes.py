"""What the processes below one do, read from /proc."""

from __future__ import annotations

import collections
import contextlib
import ipaddress
from pathlib import Path


def listening(pid):
    """The sockets that the process `pid` and all below it listen on: (command, address, port)."""
    sockets = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, _, _, _, _, _, inode, *_ = line.split()
            if state == "0A":
                number, port = local.split(":")
                packed = b"".join(bytes.fromhex(number[i : i + 8])[::-1] for i in range(0, len(number), 8))
                found = ipaddress.ip_address(packed)
                sockets[inode] = getattr(found, "ipv4_mapped", None) or found, int(port, 16)
    for each in processes_below(pid):
        for link in Path(f"/proc/{each}/fd").glob("*"):
            with contextlib.suppress(OSError):  # a file or a process that is gone now
                inode = str(link.readlink()).removeprefix("socket:[").removesuffix("]")
                if inode in sockets:
                    yield Path(f"/proc/{each}/cmdline").read_text().replace("\0", " "), *sockets[inode]


def processes_below(pid):
    children = collections.defaultdict(list)
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            children[int((entry / "stat").read_text().rpartition(")")[2].split()[1])].append(int(entry.name))
    found = [pid]
    for each in found:
        found += children[each]
    return found


def named_below(pid, words):
    """The processes below `pid` whose command line has these `words`, as the title that Ray gives to one."""
    found = []
    for each in processes_below(pid):
        with contextlib.suppress(OSError):
            if words in Path(f"/proc/{each}/cmdline").read_text():
                found.append(each)
    return found


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
