"""Forecasts of a time series, as a task plug-in of the trainer."""
