"""Resident memory of a process and all its descendants."""

from pathlib import Path


def resident_mib(pid: int) -> float:
    """MiB, shared pages counted once a process."""
    return sum(_rss_kib(each) for each in _family(pid)) / 1024


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in children for found in _family(int(child)))]


def _rss_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)
