"""One question a file: how fast, how large, how many. ``make bench`` answers them all; when it has run once,
``.venv/bin/python -m benchmarks.hit [--json]`` answers one.

Every figure is a ratio taken in one run: coatcheck, its peers and the floor, the least that the job can cost, take
turns, and the median of several rounds counts. Peers that are not installed (``make bench`` does it) are left out.
"""
