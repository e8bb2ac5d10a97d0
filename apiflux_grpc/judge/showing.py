"""The judge's report as a table for people."""

from typing import TextIO

from apiflux_grpc.core.units import counted
from apiflux_grpc.judge.report import Report


def print_report(report: Report, file: TextIO, cost: str = "cost") -> None:
    """The report as a table, then its violations; `cost` is what a limit of cost counts."""
    from rich.console import Console
    from rich.table import Table

    table = Table("key", "arrivals", "accepted", "rejected", "most in any window", title="The judge")
    for column in table.columns[1:]:
        column.justify = "right"
    for key in report.keys:
        most = "\n".join(limit.words(cost) for limit in key.limits)
        table.add_row(key.label, *(f"{count:,}" for count in (key.arrivals, key.accepted, key.rejected)), most)
    console = Console(file=file, markup=False, highlight=False, emoji=False)
    console.print(table)
    console.print(
        f"{counted(report.arrivals, 'arrival')}; the judge's own lag was at most {report.max_lag_ns / 1e6:.1f} ms."
    )
    if report.others:
        console.print(
            f"Others made {counted(report.others, 'call')} with the same keys; "
            f"{report.rejected_for_others:,} of {report.rejected:,} rejections were because of them."
        )
    if report.faults:
        faults = ", ".join(f"{count:,} {kind}" for kind, count in sorted(report.faults.items()))
        console.print(f"Faults injected into accepted arrivals: {faults}.")
    if report.refused:
        refused = ", ".join(f"{count:,} with {status}" for status, count in sorted(report.refused.items()))
        console.print(f"Refused for what they ask: {refused}.")
    for violation in report.violations or ["No violation."]:
        console.print(violation)
