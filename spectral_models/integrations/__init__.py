"""Bridges to other libraries; each imports its library, so nothing else imports them by default."""
