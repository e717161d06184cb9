"""Front ends, one a file, each with its config."""
