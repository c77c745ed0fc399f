"""The storm: many requests, several dispatchers, faults everywhere; afterwards it finds what was lost or doubled."""
