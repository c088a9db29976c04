"""One script per claim. Each measures afresh, prints a table and writes the record that ``claims.Record`` describes."""
