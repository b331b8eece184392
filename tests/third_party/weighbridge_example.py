"""The smallest engine that works: the bundle's /init in its tree by chroot, in a mount namespace."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.backends import DOORBELL, Backend, Image, Instance, Part, environment
from harness.bundle import Bundle
from harness.command import find
from harness.doorbell import Doorbell, Mark
from harness.model import Applied, Group, Limits, TargetRecord
from harness.process import Child, spawn, tail

ENTER = 'mount -o bind "$1" "$2/run/doorbell" && mount -t proc proc "$2/proc" && exec chroot "$2" /init'
UNLIMITED = "this engine knows no limits"


class Process(Instance):
    def __init__(self, child: Child, limits: Limits) -> None:
        self._child = child
        self.limits = {
            "cpus": Applied(limits.cpus, None, reason=UNLIMITED),
            "memory": Applied(limits.memory, None, reason=UNLIMITED),
        }

    def processes(self) -> Mapping[Group, list[int]]:
        return {"workload": [self._child.pid]}

    def cgroups(self) -> Mapping[str, Path]:
        return {}

    def parts(self) -> tuple[Part, ...]:
        return (Part("log", (self._child.log,)),)

    def log(self) -> str:
        return tail(self._child.log)


class Example(Backend):
    name = "example"

    def probe(self) -> TargetRecord:
        return TargetRecord(self.options.target, "example", platform.release(), "system")

    @contextmanager
    def prepare(self, bundle: Bundle, limits: Limits) -> Iterator[Image]:
        yield Image(bundle, limits, (Part("tree", (bundle.tree(),)),))

    @contextmanager
    def launch(self, image: Any, doorbell: Doorbell, mark: Mark) -> Iterator[Instance]:
        tree = image.bundle.root
        argv = [find("unshare", "util-linux"), "--mount", f"{tree}/bin/busybox", "sh", "-c", ENTER, "sh"]
        with (
            self.ledger.holding_folder() as folder,
            spawn(
                self.ledger,
                self.ledger.name(),
                [*argv, str(doorbell.fifo), str(tree)],
                folder / "log",
                environment(DOORBELL),
            ) as child,
        ):
            doorbell.watch(child.pidfd)
            yield Process(child, image.limits)


class OfTomorrow(Example):
    name = "example-of-tomorrow"
    api = 2
