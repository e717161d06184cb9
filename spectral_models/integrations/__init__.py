"""Bridges to other libraries. Each imports its library, so the rest of the package imports none of them."""
