"""Networks whose encoder is a transformer."""
