"""What this machine can run, what it lacks, and what would mend it: `scaling doctor`.

No framework is imported: versions come from the packages' metadata, Horovod's build from what it said
of itself when it was installed, or from its libraries (`horovodrun --check-build` says the same after
importing both frameworks a dozen times). Programs are asked side by side, each with a time limit.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from cluster.setup.finding import SETUP, Finding
from cluster.setup.hardware import cores, gpus, memory, tpus
from cluster.setup.names import packages
from cluster.setup.software import (
    browser,
    compiler,
    horovod,
    jax,
    python,
    pytorch,
    ray,
    seaborn,
    slurm,
    strategies,
    tensorflow,
)
from cluster.setup.variables import variables

if TYPE_CHECKING:
    from rich.table import Table


def examine() -> list[Finding]:
    """Everything a study may need, in the order in which it is read. Never raises."""
    with ThreadPoolExecutor(len(EXAMINERS)) as pool:
        return list(pool.map(_safely, EXAMINERS.items()))


def render(findings: list[Finding]) -> Table:
    """The findings as a table: ✓ can be used, ✗ will not work, – absent."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column("mark", no_wrap=True)
    table.add_column("what", no_wrap=True)
    table.add_column("says", overflow="fold")
    marks = {True: Text("✓", "green"), False: Text("✗", "bold red"), None: Text("–", "dim")}
    for finding in findings:
        says = Text(finding.says)
        if finding.mend:
            says.append(f"\n→ {finding.mend}", "yellow" if finding.ok is False else "dim")
        table.add_row(marks[finding.ok], Text(finding.name, "bold"), says)
    return table


def _safely(examiner: tuple[str, Callable[[str], Finding]]) -> Finding:
    name, look = examiner
    try:
        return look(name)
    except ImportError as error:
        return Finding(name, False, f"could not be examined: {error}", SETUP)
    except Exception as error:  # a doctor who faints is of no help
        return Finding(name, False, f"could not be examined: {type(error).__name__}: {error}")


EXAMINERS: dict[str, Callable[[str], Finding]] = {
    "Python": python,
    "Strategies": strategies,
    "PyTorch": pytorch,
    "TensorFlow": tensorflow,
    "JAX": jax,
    "Horovod": horovod,
    "Ray": ray,
    "seaborn": seaborn,
    "Packages": packages,
    "Cores": cores,
    "Memory": memory,
    "NVIDIA GPUs": gpus,
    "TPUs": tpus,
    "SLURM": slurm,
    "C++ compiler": compiler,
    "Browser": browser,
    "Variables": variables,
}
