"""What makes objects come true: the Job controller, the scheduler and the garbage collector."""
