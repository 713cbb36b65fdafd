"""What Paceline does, shown on a real workload on this machine."""
