"""Our own TEE vendors: fake roots, chips and platforms that sign what real hardware would, for what it cannot
show."""
