"""What true pairs are worth: trainings on nested subsets, their scores, a line through them."""
