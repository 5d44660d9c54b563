"""What lives inside somebody's trainer."""
