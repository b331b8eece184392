"""python -m lab.users.cut SIGNAL RESULT: end a campaign while a guest boots, by SIGINT (Ctrl-C) or SIGKILL.

After SIGKILL `weighbridge clean` must release everything, and a second `clean` must find nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil

WEIGHBRIDGE = (sys.executable, "-m", "harness")
DEADLINE = 600.0
"""Deadline in seconds for a guest to boot, and for an interrupted campaign to end."""
POLL = 0.2


def main(name: str, result: str) -> int:
    """Return 0 if the campaign ended as expected, else 1."""
    number = signal.Signals[name]
    run = ["run", "--engines", "private", "--targets", "docker,libvirt/pc", "--workloads", "hello", "-o", result]
    campaign = subprocess.Popen([*WEIGHBRIDGE, *run, "--progress", "lines"], process_group=0)
    guest = _wait_for_guest(campaign)
    print(f"cut: {name} while {guest} boots", flush=True)
    if number == signal.SIGKILL:
        campaign.kill()
    else:
        os.killpg(campaign.pid, number)  # as a terminal does
    status = campaign.wait(DEADLINE)
    print(f"cut: the campaign ended with {status}", flush=True)
    if number != signal.SIGKILL:
        return 0 if status == 128 + number else 1
    first, second = _clean(), _clean()
    return 0 if status == -number and "released" in first and "nothing was left behind" in second else 1


def _wait_for_guest(campaign: subprocess.Popen[bytes]) -> str:
    """Return the name of the campaign's virtual machine as soon as its QEMU runs."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline and campaign.poll() is None:
        for process in psutil.process_iter(["name", "uids", "cmdline"]):
            words = " ".join(process.info["cmdline"] or [])
            if (process.info["name"] or "").startswith("qemu-system") and "guest=weighbridge-" in words:
                return words.partition("guest=")[2].partition(",")[0]
        time.sleep(POLL)
    raise SystemExit(f"cut: no guest booted; the campaign's status is {campaign.poll()}")


def _clean() -> str:
    done = subprocess.run([*WEIGHBRIDGE, "clean"], capture_output=True, text=True, timeout=DEADLINE, check=False)
    print(f"cut: clean ended with {done.returncode}: {done.stdout.strip()} {done.stderr.strip()}", flush=True)
    return done.stdout if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
