"""What a run will need of a card, of memory, disk and time, by calculation."""
