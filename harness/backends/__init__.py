"""What an engine is to Weighbridge: Backend, Image, Instance, and the registry of them (backend API version 1).

An engine is one file here, or a package of somebody else that names its class in the entry-point group
`weighbridge.backends`. A backend never reads a clock, never samples, never sleeps and never decides that an
instance is ready; whatever it makes outside of Python's memory it makes under `ledger.holding`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from harness import extensions
from harness.bundle import Bundle
from harness.doorbell import Doorbell, Mark
from harness.errors import BadInput, Unavailable
from harness.ledger import Ledger
from harness.model import Accelerated, Applied, Group, Limits, Plan, TargetRecord

API = 1
ENTRY_POINTS = "weighbridge.backends"
DOORBELL = "/run/doorbell"
"""Where an instance that shares the host's kernel finds its doorbell."""


@dataclass(frozen=True)
class Unseen:
    """Stands for what exists but cannot be read from here, and why."""

    reason: str


@dataclass(frozen=True)
class Part:
    """A named part of what an image or an instance keeps on disk: the files or folders it consists of."""

    name: str
    paths: tuple[Path, ...] | Unseen


@dataclass(frozen=True)
class Image:
    """A bundle made ready for one target. `parts` are shared by all instances. Backends add what launch needs."""

    bundle: Bundle
    limits: Limits
    parts: tuple[Part, ...]
    reported: Mapping[str, int | Unseen] = field(default_factory=dict, kw_only=True)
    """Bytes by part as the engine reports them: used only where `parts` cannot be read."""


class Instance(ABC):
    """One running instance. What it is asked for is asked when it is ready: a launch waits for none of it."""

    guest_ram: str | None = None
    """For a VM: how the mapping of the guest's RAM is named in the VMM's /proc/PID/smaps."""

    @abstractmethod
    def processes(self) -> Mapping[Group, list[int] | Unseen]:
        """The host's pids of the instance by memory group; groups that the engine does not have are left out."""

    @abstractmethod
    def cgroups(self) -> Mapping[str, Path]:
        """{controller: folder} of the instance; empty where it has no control group of its own."""

    @abstractmethod
    def limits(self) -> Mapping[str, Applied]:
        """How each limit was applied, or why not."""

    @abstractmethod
    def parts(self) -> tuple[Part, ...]:
        """What this one instance has on disk."""

    def reported(self) -> Mapping[str, int | Unseen]:
        """Return bytes by part as the engine reports them. Called only where parts() cannot be read."""
        return {}

    @abstractmethod
    def log(self) -> str:
        """The tail of what the instance printed."""

    def accelerated(self) -> Accelerated | None:
        """For a VM: what ran its guest, by the VMM's own word. Raises RunError where that is not what was chosen."""
        return None

    def status(self) -> int | None:
        """Its exit status once it ended, where the engine tells it."""
        return None


READY_FACTOR = 1500
"""Factor of pace.deadline, whose floor is measure.READY_TIMEOUT."""


class Backend(ABC):
    """An engine with one set of options. Created when the plan is read, without touching the engine."""

    name: ClassVar[str]
    api: ClassVar[int] = API
    remedy: str = ""
    """How to improve the target that `probe` found, such as a command that gives this user KVM. Recorded and shown."""

    def __init__(self, options: Options, ledger: Ledger, plan: Plan) -> None:
        """Raises BadInput for options that this engine does not have."""
        self.options = options
        self.ledger = ledger
        self.plan = plan
        self.check(options)

    @classmethod
    def check(cls, options: Options) -> None:
        """Raises BadInput for options that this engine does not have. An engine without options inherits this."""
        options.only()

    def ready_factor(self) -> float:
        """Return the factor of pace.deadline for READY: larger for engines whose instances start slowly."""
        return READY_FACTOR

    @abstractmethod
    def probe(self) -> TargetRecord:
        """Return the engine, its version, its owner ("private" or "user") and its configuration.

        Raises Unavailable if it cannot run here, TransientFailure if a second try may succeed: a new backend is then
        probed once more.

        May start an engine of its own, which lives until `close`.
        """

    def requirements(self) -> Mapping[str, Callable[[], str]]:
        """Return {name: function} for each requirement besides the engine and the bundle, such as a guest kernel.

        Each function provides its requirement and returns a description of it, or raises Unavailable.
        """
        return {}

    @abstractmethod
    def prepare(self, bundle: Bundle, limits: Limits) -> AbstractContextManager[Image]:
        """Untimed: whatever is made once for all instances."""

    @abstractmethod
    def launch(self, image: Any, doorbell: Doorbell, mark: Mark) -> AbstractContextManager[Instance]:
        """Timed: asks the engine for one instance. Its death goes to doorbell.watch() as soon as it can be told."""

    def refresh(self, image: Any) -> None:
        """Untimed, before each launch: makes new what every instance must find new and no engine makes for it."""
        return

    def daemons(self) -> list[int] | Unseen:
        """The pids of daemons that all instances share, for the records of the host."""
        return []

    def close(self) -> None:
        """Ends what probe started."""
        return


@dataclass(frozen=True)
class Options:
    """What follows the backend's name in a target: `libvirt/pc,accel=tcg` has {"pc": "", "accel": "tcg"}."""

    target: str
    values: Mapping[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def get(self, name: str) -> str | None:
        return self.values.get(name)

    def words(self) -> list[str]:
        """The options that have no value."""
        return [name for name, value in self.values.items() if not value]

    def only(self, *known: str) -> None:
        """Raises BadInput for an option that is not known. A word is written `word`, a setting `name=`."""
        for name, value in self.values.items():
            if (name if not value else f"{name}=") not in known:
                told = ", ".join(known) if known else "none"
                raise BadInput(f"target {self.target}: unknown option {name!r}; known: {told}")


def parse(target: str) -> tuple[str, Options]:
    """Splits a target's key into the backend's name and its options. Raises BadInput."""
    name, _, rest = target.partition("/")
    values: dict[str, str] = {}
    for option in filter(None, rest.split(",")):
        key, equals, value = option.partition("=")
        if not key or (equals and not value) or key in values:
            raise BadInput(f"target {target}: cannot read option {option!r}")
        values[key] = value
    if not name or (rest == "" and "/" in target):
        raise BadInput(f"cannot read target {target!r}; an example: docker, or libvirt/pc,accel=tcg")
    return name, Options(target, values)


def names() -> list[str]:
    """The backends that are installed."""
    return list(extensions.installed(ENTRY_POINTS))


def create(target: str, ledger: Ledger, plan: Plan) -> Backend:
    """The backend of a target. Raises BadInput for an unknown one, Unavailable for one that cannot be imported."""
    name, options = parse(target)
    point = extensions.installed(ENTRY_POINTS).get(name)
    if point is None:
        raise BadInput(f"unknown target {target!r}; known: {', '.join(names())}")
    backend: type[Backend] = extensions.load(point)
    spoken = getattr(backend, "api", None)
    if spoken != API:
        raise Unavailable(f"its backend speaks API {spoken}, this program {API}", "install a release that fits")
    return backend(options, ledger, plan)


def environment(doorbell: str) -> dict[str, str]:
    """What every instance finds in its environment, whatever carries it."""
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "WEIGHBRIDGE_DOORBELL": doorbell}
