"""Gates, one per file, each with its config."""
