"""Model variants: one file each, with the model and its config."""
