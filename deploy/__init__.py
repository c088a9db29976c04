"""Ways to run the pipeline: ``local`` is the embedded default; ``pipelines`` holds pipeline files to start from."""
