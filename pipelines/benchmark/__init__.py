"""`medseg benchmark`: networks, losses and the parts of a recipe, compared by trainings such as a person starts."""
