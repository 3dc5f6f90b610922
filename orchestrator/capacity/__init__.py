"""`bench capacity`: the largest rate at which a configuration holds its objectives."""
