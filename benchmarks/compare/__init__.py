"""Is A faster than B: interleaved pairs, paired statistics, quality, and a verdict, or none."""
