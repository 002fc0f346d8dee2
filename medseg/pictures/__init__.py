"""Pictures for people: overlays of labels on images, heat of weights, and curves of a run, as PNG bytes."""

from medseg.pictures.curves import curves
from medseg.pictures.heat import heat
from medseg.pictures.overlay import overlay

__all__ = ["curves", "heat", "overlay"]
