"""`make scale`: what thousands of trainings cost one dispatcher."""
