"""The trust ladder's expensive rungs, each a plain function that ``mfh check`` runs and writes down.

A check makes worlds of its own in a folder that is thrown away, runs the pipeline's own steps in them, and returns a
record; ``certificate`` puts the records together under a hash of the code that they speak of. Nothing here is part of
a day: a daily report only cites the certificate. May import steps, models and the simulator; nothing imports it but
the command line and the report's citation.
"""
