"""Front ends, one per file, each with its config."""
