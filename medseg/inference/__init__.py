"""From a volume of any size to a segmentation on its own grid."""
