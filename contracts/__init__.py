"""What two rooms must agree on, and nothing else.

Nothing in here touches the world: no network, disk, clock, broker or environment.
"""
