"""DAGs: they wire steps and nothing else. Nothing heavy may be imported at module level."""
