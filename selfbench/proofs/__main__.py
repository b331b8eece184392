"""`python -m selfbench.proofs`: proves the statistics, prints what was found, and keeps it in results/proofs.json."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import msgspec

from harness.errors import WeighbridgeError
from selfbench.proofs import coverage, power, recorded, same, simulated
from selfbench.proofs.finding import Finding, Proofs, table

PROOFS: dict[str, Callable[[int], Iterator[Finding]]] = {
    "same": same.findings,
    "simulated": simulated.findings,
    "power": power.findings,
    "coverage": coverage.findings,
}
RESULT = Path("results/proofs.json")
SEED = 1


@click.command()
@click.argument("proofs", nargs=-1, type=click.Choice(list(PROOFS)))
@click.option("--seed", type=int, default=SEED, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="[results/proofs.json, where all is proved]")
def main(proofs: tuple[str, ...], seed: int, output: Path | None) -> None:
    """Proves PROOFS (all, if none is named). Exit code 1 where a promise is missed. The same seed, the same bytes."""
    findings: list[Finding] = []
    for name in proofs or PROOFS:
        print(f"proofs: {name}", file=sys.stderr, flush=True)
        findings += PROOFS[name](seed)
    command = ["python", "-m", "selfbench.proofs", *proofs, "--seed", str(seed)]
    host = recorded.results("run")[0].header.host
    found = Proofs(command=command, seed=seed, host=host, findings=findings)
    if output is None and not proofs:
        output = RESULT
    if output is not None:
        output.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    print(table(found))
    sys.exit(any(finding.kept is False for finding in findings))


if __name__ == "__main__":
    try:
        main()
    except WeighbridgeError as error:
        sys.exit(f"proofs: {error}")
