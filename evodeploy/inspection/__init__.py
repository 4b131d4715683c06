"""What a file is and what this machine has, found out without running a network."""
