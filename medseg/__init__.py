"""medseg: medical image segmentation from a manifest of studies to results in the hospital's archive."""

__version__ = "0.1.0"
