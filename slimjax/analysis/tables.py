"""Tables for the terminal."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from slimjax.analysis.profile import profile_model
from slimjax.models.network import SlimmableNetwork
from slimjax.tasks.task import Figures


def width_table(model: SlimmableNetwork, image_size: int, figures: Mapping[float, Figures]) -> Table:
    """A row for every width: parameters, MACs of one image, and its figures."""
    names = list(next(iter(figures.values())))
    table = Table("width", "parameters", "MACs", *(name.replace("_", " ") for name in names), title=None)
    for column in table.columns:
        column.justify = "right"
    for row in profile_model(model, image_size):
        values = (f"{figures[row.width][name]:.2f}" for name in names)
        table.add_row(f"{row.width:g}", f"{row.params:,}", f"{row.macs / 1e6:,.2f} M", *values)
    return table


def print_table(table: Table) -> None:
    """Prints to stdout, aligned, without colours when it is not a terminal."""
    Console(highlight=False).print(table)
