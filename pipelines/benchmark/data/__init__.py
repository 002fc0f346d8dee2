"""`medseg benchmark data`: what the way from a case on disk to a batch costs, beside what others need for the same."""
