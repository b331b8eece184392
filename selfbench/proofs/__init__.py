"""That the statistics of a comparison hold: on recorded campaigns of one and the same thing, and by simulation."""
