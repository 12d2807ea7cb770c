"""Take a finished run elsewhere."""
