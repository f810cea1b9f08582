"""tombola finds, proves and ships winning lottery tickets."""
