"""`medseg benchmark`: networks, losses and the parts of a recipe, compared by real trainings; and the data of one."""
