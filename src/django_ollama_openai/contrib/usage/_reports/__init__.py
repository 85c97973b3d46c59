"""Reports on sums: time ranges, groups, CSV."""
