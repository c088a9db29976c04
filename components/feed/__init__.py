"""Feeds: the canonical schema of the log, its sources, and the rules that refuse or repair rows."""
