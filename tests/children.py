"""Children of a test: processes of which it is known what they hold, what they burn, and that they have ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.backends import Instance, Part, Unseen
from harness.model import Applied, Group

CHILD = """
import ctypes, mmap, os, resource, sys, threading, time

def touched(pages):
    for at in range(0, len(pages), mmap.PAGESIZE):
        pages[at] = 1
    return pages

def anonymous(size, protection=mmap.PROT_READ | mmap.PROT_WRITE):
    return touched(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, protection))

def shared(size):
    return touched(mmap.mmap(-1, size, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS))

def of_file(path, size):
    with open(path, "rb") as file:
        pages = mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ)
    for at in range(0, size, mmap.PAGESIZE):
        pages[at]
    return pages

def named(name, size):
    fd = os.memfd_create(name)
    os.truncate(fd, size)
    return touched(mmap.mmap(fd, size))

def burn(seconds, clock=time.process_time, work=lambda: None):
    end = clock() + seconds
    while clock() < end:
        work()

def count():
    sum(range(20000))

def call(file=open("/dev/zero", "rb", buffering=0), room=bytearray(2**20)):
    file.readinto(room)

def in_thread(work, name="worker"):
    def run():
        with open(f"/proc/self/task/{threading.get_native_id()}/comm", "w") as comm:
            comm.write(name)
        work()
    thread = threading.Thread(target=run)
    thread.start()
    return thread

def say(what=""):
    print(what, flush=True)

exec(sys.argv[1])
say()
sys.stdin.read()
"""


@dataclass(frozen=True)
class Held:
    """A child that did what it was told to, and waits. said: the numbers it told of it."""

    pid: int
    said: list[float]


@contextmanager
def child(script: str) -> Iterator[Held]:
    argv = [sys.executable, "-I", "-S", "-c", CHILD, script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = []
        while (line := process.stdout.readline()) != "\n":
            assert line, "the child failed"
            said.append(float(line))
        try:
            yield Held(process.pid, said)
        finally:
            process.kill()


@contextmanager
def ended() -> Iterator[int]:
    """The pid of a zombie: a child that has ended and was not waited for."""
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        yield process.pid


def gone() -> int:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


class Told(Instance):
    """An instance of these processes."""

    def __init__(
        self,
        groups: Mapping[Group, list[int] | Unseen],
        folders: Mapping[str, Path] | None = None,
        guest_ram: str | None = None,
    ) -> None:
        self._groups = groups
        self._folders = folders or {}
        self.guest_ram = guest_ram

    def processes(self) -> Mapping[Group, list[int] | Unseen]:
        return self._groups

    def cgroups(self) -> Mapping[str, Path]:
        return self._folders

    def limits(self) -> Mapping[str, Applied]:
        return {}

    def parts(self) -> tuple[Part, ...]:
        return ()

    def log(self) -> str:
        return ""
