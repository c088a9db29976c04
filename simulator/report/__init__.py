"""The report page: one self-contained HTML file rendered from an ``Experiment`` and nothing else."""
