"""The ``spectral`` command, one subcommand a file."""
