"""Recovery: win back what the budget cost; one file each, registered beside the code."""
