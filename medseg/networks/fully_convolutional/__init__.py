"""Networks that classify on a coarse grid and bring the scores back to the image."""
