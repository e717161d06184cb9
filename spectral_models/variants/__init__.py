"""Model variants, one a file, each with its config."""
