"""How far apart the steps of a run are logged, and how many are missing."""

from collections import Counter


def find_interval(distances: Counter[int]) -> int | None:
    """The logging interval, in steps: the most common distance between two records, the smaller at a tie; None without any."""
    return min(distances, key=lambda distance: (-distances[distance], distance)) if distances else None


def count_missing(distance: int, *, interval: int) -> int:
    """Records that are missing between two that lie `distance` steps apart."""
    return max(distance // interval - 1, 0)


def count_gaps(distances: Counter[int]) -> int:
    """Records that are missing in a run with these distances between one record and the next."""
    interval = find_interval(distances)
    if interval is None:
        return 0
    return sum(n * count_missing(distance, interval=interval) for distance, n in distances.items())
