"""From factors to executable layers: in which order, and as which modules."""
