"""Time beside the floor and the peers: `python -m benchmarks` (README.md says how it is measured)."""
