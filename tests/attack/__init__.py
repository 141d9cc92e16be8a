"""Attack: what strangers may give to pimc, damaged in every way, through the command line (benchmarks/attack.py)."""
