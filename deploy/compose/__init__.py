"""The cluster in containers: a compose file, and the two small programs that it needs once."""
