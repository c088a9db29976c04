"""Ways to run the pipeline: ``local`` is the embedded default; ``pipelines`` holds starting points for pipeline files."""
