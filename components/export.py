"""Metrics of a report as a file for spreadsheets and notebooks."""

from pathlib import Path

import pyarrow.csv
import pyarrow.parquet

from components.errors import ConfigError
from simulator.experiment import Experiment
from simulator.report.table import harmless, metrics_table


def export_metrics(experiment: Experiment, path: Path) -> int:
    """Write every metric, segment and method of a record as one flat table.

    Args:
        experiment: The record.
        path: Ends in ``.csv`` or ``.parquet``; an existing file is replaced.

    Returns:
        The number of rows.

    Raises:
        ConfigError: When the name has another ending, or the file can not be written.
    """
    table = metrics_table(experiment)
    try:
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(harmless(table), path)
        elif path.suffix == ".parquet":
            pyarrow.parquet.write_table(table, path, compression="zstd")
        else:
            raise ConfigError(f"{path}: a table is written as .csv or .parquet, not as {path.suffix or 'a name alone'}")
    except OSError as error:
        raise ConfigError(f"{path} can not be written: {error}") from error
    rows: int = table.num_rows
    return rows
