"""What the doctor says of the variables that are set here and that libraries read."""

from __future__ import annotations

import os

from cluster.setup.finding import Finding
from jobs.machine.variables import KEPT, NEUTRAL, PASSED, PLACE, refused, rule

DONE = {NEUTRAL: "neutralized", PLACE: "neutralized", KEPT: KEPT, PASSED: PASSED}


def variables(name: str) -> Finding:
    """Each under what is done with it. Those that no library here is known to read are not named."""
    faults = refused(os.environ)
    named: dict[str, list[str]] = {}
    for variable in sorted(os.environ):
        found = rule(variable)
        if found is not None and not any(fault.startswith(f"{variable}: ") for fault in faults):
            named.setdefault(DONE[found.what], []).append(variable)
    lines = [f"refused: {fault}" for fault in faults]
    lines += [f"{what}: {', '.join(named[what])}" for what in dict.fromkeys(DONE.values()) if what in named]
    why = "docs/environment.md says why" if lines else ""
    return Finding(name, not faults, "\n".join(lines) or "none that libraries read", why)
