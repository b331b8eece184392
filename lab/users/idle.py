"""python -m lab.users.idle URI: make two calls to a libvirt daemon with a pause between them.

A daemon closes the connection of a client that does not answer its keepalive messages for 30 s.
"""

from __future__ import annotations

import sys
import time

from harness.engines import libvirt
from harness.ledger import Ledger
from harness.model import Plan

PAUSE = 65.0
"""Seconds without a call: longer than the daemon's keepalive limit."""


def main(uri: str) -> None:
    with Ledger() as ledger, libvirt.find(Plan(engines="user", libvirt_uri=uri), ledger) as engine:
        print(f"{uri}: QEMU {engine.version}", flush=True)
        time.sleep(PAUSE)
        print(f"after {PAUSE:g} s without a call: QEMU {engine.version}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
