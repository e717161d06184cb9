"""Feed-forwards, one per file, each with its config."""
