"""The day as a Kubeflow pipeline: one task per step, each ``mfh step NAME`` in the same container as everywhere else.

Runs in an environment of its own (requirements-kfp.lock), which knows kfp and, of ours, the list of steps alone.
"""
