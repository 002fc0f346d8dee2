"""From cases and a network to trained weights, the same twice."""
