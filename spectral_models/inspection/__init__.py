"""Inspects what a model's filters, gates and memories do to frequencies: as numbers, and as plots of them."""
