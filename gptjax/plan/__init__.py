"""What a training will need in memory and time, on devices that need not be there."""
